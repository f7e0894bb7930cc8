# SPDX-License-Identifier: Apache-2.0
"""What happens to each request before it reaches its endpoint, from the outside in: count, fault, limit, authorise.

They share what they know of a request in its scope, as `sandbox.body`, `sandbox.fault`, `sandbox.dropped` and
`sandbox.roles`.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from intergiro_provider.sandbox.bank import APIS, Bank
from intergiro_provider.sandbox.connections import Connections
from intergiro_provider.sandbox.faults import Fault, Faults
from intergiro_provider.sandbox.misbehave import Wire, replaced, spoiled
from intergiro_provider.sandbox.responses import error, too_many

MAX_BODY = 32 * 2**20


class Record:
    """Counts requests, keeps the last ones, and adds the headers that every response has.

    :param template: how counters call a path.
    :param verbose: one line per request on stderr: method, path without query, status, milliseconds. Never a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        bank: Bank,
        connections: Connections,
        template: Callable[[str], str],
        verbose: bool,
    ) -> None:
        self._app, self._bank, self._connections = app, bank, connections
        self._template, self._verbose = template, verbose
        self.requests: deque[tuple[Any, ...]] = deque(maxlen=bank.settings.kept_requests)
        self.in_flight = 0
        self._number = 0
        self._date = (0, b"")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, counters = time.perf_counter(), self._bank.counters
        method, path, peer = scope["method"], scope["path"], scope["client"]
        counters.requests += 1
        counters.by_path[f"{method} {self._template(path)}"] += 1
        counters.connections += self._connections.first_request(peer)
        self.in_flight += 1
        counters.peak_concurrent = max(counters.peak_concurrent, self.in_flight)
        self._number += 1
        number, status, body = self._number, 0, b""

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
            self.in_flight -= 1
            counters = self._bank.counters  # a reset may have replaced them meanwhile
            scope["sandbox.body"] = b"" if is_public(path) else body[:4096]
            if scope.get("sandbox.dropped"):
                status = 0
            counters.by_status[str(status) if status else "none"] += 1
            counters.too_many_requests += status == 429
            counters.consents_required += status == 412
            self.requests.append((number, scope, status, peer))
            if self._verbose:
                took = (time.perf_counter() - started) * 1000
                print(f"{method} {path} {status or 'no answer'} {took:.0f} ms", file=sys.stderr, flush=True)

    def kept(self) -> list[dict[str, Any]]:
        """The last requests as JSON carries them; a bearer is told by its hash."""
        return [
            {
                "number": number,
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode("latin-1"),
                "headers": [_told(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
                "body": scope["sandbox.body"].decode("utf-8", "replace"),
                "status": status,
                "fault": scope.get("sandbox.fault", ""),
                "connection": f"{peer[0]}:{peer[1]}",
            }
            for number, scope, status, peer in self.requests
        ]

    def keep(self, count: int, *, forget: bool = False) -> None:
        """Keep so many requests from now on."""
        self.requests = deque(() if forget else self.requests, maxlen=count)

    def _now(self) -> bytes:
        now = int(self._bank.now() + self._bank.settings.date_skew)
        if now != self._date[0]:
            self._date = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode("ascii"))
        return self._date[1]


class Misbehave:
    """Lets faults strike, and adds the latency of the settings."""

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
        if params.get("handled") or kind == "lose_answer":
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
        # Authorised now, although it may be executed after the access token has expired.
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


class Limit:
    """Answers 429 where the limits of the settings say so; /auth/* is exempt.

    :param in_flight: how many requests are being answered.
    """

    def __init__(self, app: ASGIApp, bank: Bank, in_flight: Callable[[], int]) -> None:
        self._app, self._bank, self._in_flight = app, bank, in_flight
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
        if settings.max_concurrency and self._in_flight() > settings.max_concurrency:
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
    """Lets protected requests through only with an access token that lives."""

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


class Compress:
    """Compresses responses where the setting says so."""

    def __init__(self, app: ASGIApp, bank: Bank) -> None:
        self._plain, self._packed, self._bank = app, GZipMiddleware(app, minimum_size=257, compresslevel=1), bank

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._packed if self._bank.settings.compress else self._plain)(scope, receive, send)


def is_public(path: str) -> bool:
    """Whether a path is called without an access token: login, refresh, and what is in neither API."""
    parts = path.split("/")
    return parts[1] not in APIS or parts[2:] in (["auth", "login"], ["auth", "refresh"])


def authorize(bank: Bank, scope: Scope) -> frozenset[str] | None:
    """The roles of a request's access token; None where it has none that lives."""
    if scope.get("sandbox.roles") is None:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
        scheme, _, token = sent.partition(" ")
        known = token and scheme.lower() == "bearer"
        scope["sandbox.roles"] = bank.sessions.authorize(scope["path"].split("/")[1], token) if known else None
    roles: frozenset[str] | None = scope["sandbox.roles"]
    return roles


async def captured(app: ASGIApp, scope: Scope, receive: Receive) -> Response:
    """The response of an application, kept from the wire."""
    response = Response()

    async def take(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status_code, response.raw_headers = message["status"], list(message["headers"])
        else:
            response.body = bytes(response.body) + message.get("body", b"")

    await app(scope, receive, take)
    return response


def replay(body: bytes, receive: Receive | None = None) -> Receive:
    """A `receive` that gives a body which was read before, and then what `receive` gives."""
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


def _told(name: str, value: str) -> tuple[str, str]:
    if name != "authorization":
        return name, value
    scheme, _, token = value.partition(" ")
    return name, f"{scheme} #{hashlib.sha256(token.encode()).hexdigest()[:12]}"
