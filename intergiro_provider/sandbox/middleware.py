# SPDX-License-Identifier: Apache-2.0
"""The middleware: count each request, inject a fault, limit the rate, and authorize.

They share data about a request in its scope: `sandbox.body`, `sandbox.fault`, `sandbox.dropped` and
`sandbox.roles`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intergiro_provider.sandbox.bank import APIS, Bank
from intergiro_provider.sandbox.connections import Connections
from intergiro_provider.sandbox.fault_effects import Wire, replaced, spoiled
from intergiro_provider.sandbox.faults import Fault, Faults
from intergiro_provider.sandbox.request_log import RequestLog
from intergiro_provider.sandbox.responses import error, too_many

MAX_BODY = 32 * 2**20


class RecordRequests:
    """Count requests, log them, and add the headers that every response has.

    :param template: returns the name of a path in the counters.
    """

    def __init__(
        self, app: ASGIApp, bank: Bank, log: RequestLog, connections: Connections, template: Callable[[str], str]
    ) -> None:
        self._app, self._bank, self._log, self._connections = app, bank, log, connections
        self._template = template
        self._date = (0, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, counters, log = time.perf_counter(), self._bank.counters, self._log
        method, path = scope["method"], scope["path"]
        counters.requests += 1
        counters.by_path[f"{method} {self._template(path)}"] += 1
        counters.connections += self._connections.first_request(scope["client"])
        log.in_progress += 1
        counters.peak_concurrent = max(counters.peak_concurrent, log.in_progress)
        log.number += 1
        number, status, body = log.number, 0, b""

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"date", self._now()), (b"x-request-id", b"sandbox-%08x" % number)]
                message = {**message, "headers": [*headers, *message["headers"]]}
            await send(message)

        try:
            scope["sandbox.body"] = body = await _body(receive, scope["headers"])
            await self._app(scope, replay(body, receive) if body else receive, finish)
        finally:
            log.in_progress -= 1
            counters = self._bank.counters  # a reset replaces them
            scope["sandbox.body"] = b"" if is_public(path) else body[:4096]
            if scope.get("sandbox.dropped"):
                status = 0
            counters.by_status[str(status) if status else "none"] += 1
            counters.too_many_requests += status == 429
            counters.consents_required += status == 412
            log.add(number, scope, status, time.perf_counter() - started)

    def _now(self) -> bytes:
        now = int(self._bank.now() + self._bank.settings.date_skew)
        if now != self._date[0]:
            self._date = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode("ascii"))
        return self._date[1]


class InjectFaults:
    """Apply the faults that match a request, and add the latency of the settings."""

    def __init__(self, app: ASGIApp, bank: Bank, faults: Faults, connections: Connections) -> None:
        self._app, self._bank, self._faults, self._connections = app, bank, faults, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults, method, path = self._faults, scope["method"], scope["path"]
        wait, fault = self._bank.settings.latency, None
        if faults:
            wait += faults.latency(method, path)
            fault = faults.before(method, path)
        if wait > 0:
            await asyncio.sleep(wait)
        if fault is not None:
            await self._instead(self._struck(fault, scope), scope, receive, send)
        elif faults:
            response = await captured(self._app, scope, receive)
            fault = faults.after(method, path) if response.status_code < 300 else None
            if fault is None:
                await response(scope, receive, send)
            else:
                await self._spoil(self._struck(fault, scope), response, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _struck(self, fault: Fault, scope: Scope) -> Fault:
        self._bank.counters.faults[fault.kind] += 1
        scope["sandbox.fault"] = fault.kind
        return fault

    async def _instead(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        kind, params = fault.kind, fault.params
        if params.get("handled") or kind == "lose_response":
            await self._execute(scope, params["commit_after"])
        response = replaced(fault, self._bank.now() + self._bank.settings.date_skew)
        if response is not None:
            await response(scope, receive, send)
            return
        scope["sandbox.dropped"] = True
        wire = self._wire(scope, receive, send)
        if kind == "hang":
            await wire.hang(params["seconds"])
        else:
            await wire.drop(reset=params["reset"])

    async def _execute(self, scope: Scope, seconds: float) -> None:
        # Authorized now: the access token may have expired when the request is executed.
        if is_public(scope["path"]) or authorize(self._bank, scope) is not None:
            inner = dict(scope)
            await self._bank.later(seconds, lambda: captured(self._app, inner, replay(inner["sandbox.body"])))

    async def _spoil(self, fault: Fault, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind == "stuck_page":
            query = [pair for pair in parse_qsl(scope["query_string"].decode()) if pair[0] != "starting_after"]
            response = await captured(self._app, {**scope, "query_string": urlencode(query).encode()}, receive)
        response = spoiled(fault, response)
        if fault.kind == "drop_body":
            scope["sandbox.dropped"] = True
            wire = self._wire(scope, receive, send)
            await wire.part(response, fault.params["fraction"], reset=fault.params["reset"])
        else:
            await response(scope, receive, send)

    def _wire(self, scope: Scope, receive: Receive, send: Send) -> Wire:
        return Wire(self._connections.transport(scope["client"]), receive, send)


class LimitRequests:
    """Respond with 429 above the limits of the settings; /auth/* is exempt."""

    def __init__(self, app: ASGIApp, bank: Bank, log: RequestLog) -> None:
        self._app, self._bank, self._log = app, bank, log
        self._allowance, self._refilled = float("inf"), time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._bank.settings
        if is_public(scope["path"]) or not self._too_many():
            await self._app(scope, receive, send)
            return
        now = self._bank.now() + settings.date_skew
        await too_many(settings.retry_after, settings.retry_after_form, now)(scope, receive, send)

    def _too_many(self) -> bool:
        settings = self._bank.settings
        if settings.max_concurrency and self._log.in_progress > settings.max_concurrency:
            return True
        if not settings.requests_per_second:
            return False
        now, rate = time.monotonic(), settings.requests_per_second
        grown = self._allowance + (now - self._refilled) * rate
        self._allowance, self._refilled = min(settings.request_burst or max(rate, 1.0), grown), now
        if self._allowance < 1:
            return True
        self._allowance -= 1
        return False


class Authorize:
    """Respond with 401 to protected requests without a valid access token."""

    def __init__(self, app: ASGIApp, bank: Bank) -> None:
        self._app, self._bank = app, bank

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._bank.catch_up()
        refused = None if is_public(scope["path"]) else self._refuse(scope)
        await (refused or self._app)(scope, receive, send)

    def _refuse(self, scope: Scope) -> Response | None:
        counters = self._bank.counters
        if authorize(self._bank, scope) is None:
            counters.unauthorized += 1
            return error(401, "unauthorized", "The access token is missing, not valid or expired.")
        if any(scope["path"].startswith(prefix) for prefix in self._bank.settings.always_401):
            counters.unauthorized += 1
            counters.permission_401 += 1
            return error(401, "unauthorized", "Not authorized.")
        return None


def is_public(path: str) -> bool:
    """Return whether a path needs no access token: login, refresh, and paths outside both APIs."""
    parts = path.split("/")
    return parts[1] not in APIS or parts[2:] in (["auth", "login"], ["auth", "refresh"])


def authorize(bank: Bank, scope: Scope) -> frozenset[str] | None:
    """Return the roles of a request's access token; None without a valid one."""
    if scope.get("sandbox.roles") is None:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
        scheme, _, token = sent.partition(" ")
        known = token and scheme.lower() == "bearer"
        scope["sandbox.roles"] = bank.sessions.authorize(scope["path"].split("/")[1], token) if known else None
    roles: frozenset[str] | None = scope["sandbox.roles"]
    return roles


async def captured(app: ASGIApp, scope: Scope, receive: Receive) -> Response:
    """Run an application and return its response instead of sending it."""
    response = Response()

    async def take(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code, response.raw_headers = message["status"], list(message["headers"])
        else:
            response.body = bytes(response.body) + message.get("body", b"")

    await app(scope, receive, take)
    return response


def replay(body: bytes, receive: Receive | None = None) -> Receive:
    """Return a `receive` that returns this body first, then the messages of `receive`."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent and receive is not None:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _body(receive: Receive, headers: list[tuple[bytes, bytes]]) -> bytes:
    if not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
        return b""
    parts, size = [], 0
    while size <= MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            break
    return b"".join(parts)
