# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: counts requests, lets faults strike, and puts the bank's answers on the wire."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from intergiro_provider.sandbox.bank import Bank, Route, route
from intergiro_provider.sandbox.faults import Fault, Faults
from intergiro_provider.sandbox.misbehave import (
    Message,
    Receive,
    Send,
    Wire,
    http_date,
    replaced,
    spoiled,
    too_many,
)
from intergiro_provider.sandbox.replies import Reply, Request
from intergiro_provider.sandbox.settings import Settings

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL = "/_sandbox"
MAX_BODY = 32 * 2**20


class Connections:
    """The open connections by the peer's address; each counts once a request of the bank's has come on it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}
        self._counted: set[tuple[str, int]] = set()

    def opened(self, peer: tuple[str, int], transport: asyncio.Transport) -> None:
        """A connection was accepted."""
        self._open[peer] = transport

    def closed(self, peer: tuple[str, int]) -> None:
        """A connection has gone."""
        self._open.pop(peer, None)
        self._counted.discard(peer)

    def transport(self, peer: tuple[str, int]) -> asyncio.Transport | None:
        """The connection's transport, while it is open."""
        return self._open.get(peer)

    def first_request(self, peer: tuple[str, int]) -> bool:
        """Whether this is the first request on its connection."""
        if peer in self._counted:
            return False
        self._counted.add(peer)
        return True

    def close_all(self) -> None:
        """Close every connection at once."""
        for transport in list(self._open.values()):
            transport.abort()


class App:
    """Serves the bank; requests below /_sandbox go to `control`.

    :param verbose: one line per request on stderr: method, path without query, status, milliseconds. Never a token.
    """

    def __init__(self, bank: Bank, *, verbose: bool = False) -> None:
        self.bank, self.faults, self.connections = bank, Faults(), Connections()
        self.control: Asgi | None = None
        self.requests: deque[tuple[Any, ...]] = deque(maxlen=bank.settings.kept_requests)
        self._verbose = verbose
        self._in_flight = 0
        self._number = 0
        self._date = (0, b"")
        self._allowance, self._refilled = float("inf"), time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith(CONTROL) and self.control is not None:
            await self.control(scope, receive, send)
            return
        started = time.perf_counter()
        counters, method, peer = self.bank.counters, scope["method"], scope["client"]
        to = route(path)
        counters.requests += 1
        counters.by_path[f"{method} {to.template}"] += 1
        if self.connections.first_request(peer):
            counters.connections += 1
        self._in_flight += 1
        counters.peak_concurrent = max(counters.peak_concurrent, self._in_flight)
        self._number += 1
        number, body, status, fault = self._number, b"", 0, None
        try:
            body = await _body(receive, scope["headers"])
            wire = Wire(self.connections.transport(peer), receive, send)
            status, fault = await self._serve(
                Request(
                    method,
                    path,
                    _query(scope["query_string"]),
                    {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
                    body,
                ),
                to,
                wire,
                number,
            )
        finally:
            self._in_flight -= 1
            counters = self.bank.counters  # a reset may have replaced them meanwhile
            counters.by_status[str(status) if status else "none"] += 1
            if to.public:
                body = b""
            self.requests.append((number, method, scope, body[:4096], status, fault, peer))
            if self._verbose:
                took = (time.perf_counter() - started) * 1000
                print(f"{method} {path} {status or 'no answer'} {took:.0f} ms", file=sys.stderr, flush=True)

    async def _serve(self, request: Request, to: Route, wire: Wire, number: int) -> tuple[int, str]:
        """Answer one request. Returns the status, 0 where there was no whole answer, and the fault that struck."""
        settings, faults = self.bank.settings, self.faults
        method, path = request.method, request.path
        wait = settings.latency
        fault: Fault | None = None
        if faults:
            wait += faults.latency(method, path)
            fault = faults.before(method, path)
        if wait > 0:
            await asyncio.sleep(wait)
        if fault is not None:
            return await self._struck(fault, request, to, wire, number)
        reply = self._limited(settings, to) or self.bank.refuse(request, to)
        if reply is None:
            guard = faults.guard(method, path) if faults else None
            if guard is not None:
                self.bank.counters.faults[guard.kind] += 1
            reply = self.bank.answer(request, to, consent=guard.params["scope"] if guard else "")
        if faults and reply.status < 300:
            fault = faults.after(method, path)
        if fault is None:
            await wire.reply(reply.status, *self._finish(reply, request, number))
            return reply.status, ""
        return await self._spoilt(fault, reply, request, to, wire, number)

    async def _struck(self, fault: Fault, request: Request, to: Route, wire: Wire, number: int) -> tuple[int, str]:
        kind, params = fault.kind, fault.params
        self.bank.counters.faults[kind] += 1
        executed = params.get("handled") or kind == "lose_answer"
        if executed and self.bank.refuse(request, to) is None:
            self.bank.later(params["commit_after"], lambda: self.bank.answer(request, to))
        reply = replaced(fault, self.bank.now() + self.bank.settings.date_skew)
        if reply is not None:
            await wire.reply(reply.status, *self._finish(reply, request, number))
            return reply.status, kind
        if kind == "hang":
            await wire.hang(params["seconds"])
        else:
            await wire.drop(reset=params["reset"])
        return 0, kind

    async def _spoilt(
        self, fault: Fault, reply: Reply, request: Request, to: Route, wire: Wire, number: int
    ) -> tuple[int, str]:
        kind, params = fault.kind, fault.params
        self.bank.counters.faults[kind] += 1
        if kind == "stuck_page":
            request.query = {name: v for name, v in request.query.items() if name != "starting_after"}
            reply = self.bank.answer(request, to)
        reply = spoiled(fault, reply)
        headers, body = self._finish(reply, request, number)
        if kind == "drop_body":
            await wire.part(reply.status, headers, body[: int(len(body) * params["fraction"])], reset=params["reset"])
            return 0, kind
        await wire.reply(reply.status, headers, body)
        return reply.status, kind

    def _limited(self, settings: Settings, to: Route) -> Reply | None:
        """429 where the limits of the settings say so; /auth/* is exempt."""
        if to.public or not (settings.max_concurrency or settings.requests_per_second):
            return None
        limited = bool(settings.max_concurrency) and self._in_flight > settings.max_concurrency
        if settings.requests_per_second and not limited:
            now = time.monotonic()
            capacity = max(settings.requests_per_second, 1.0)
            grown = self._allowance + (now - self._refilled) * settings.requests_per_second
            self._allowance, self._refilled = min(capacity, grown), now
            limited = self._allowance < 1
            self._allowance -= not limited
        if not limited:
            return None
        return too_many(settings.retry_after, settings.retry_after_form, self.bank.now() + settings.date_skew)

    def _finish(self, reply: Reply, request: Request, number: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The headers and body that go out; also counts what is said."""
        counters, settings, body = self.bank.counters, self.bank.settings, reply.body
        counters.rows += reply.rows
        if reply.status == 429:
            counters.too_many_requests += 1
        elif reply.status == 412:
            counters.consents_required += 1
        now = int(self.bank.now() + settings.date_skew)
        if now != self._date[0]:
            self._date = (now, http_date(now).encode("ascii"))
        headers = [
            (b"date", self._date[1]),
            (b"content-type", reply.content_type.encode("latin-1")),
            (b"x-request-id", b"sandbox-%08x" % number),
        ]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        if settings.compress and len(body) > 256 and "gzip" in request.headers.get("accept-encoding", ""):
            body = gzip.compress(body, 1)
            headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", b"%d" % len(body)))
        return headers, body

    def kept(self) -> list[dict[str, Any]]:
        """The last requests as JSON carries them; a bearer is told by its hash."""
        return [
            {
                "number": number,
                "method": method,
                "path": scope["path"],
                "query": scope["query_string"].decode("latin-1"),
                "headers": [_told(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
                "body": body.decode("utf-8", "replace"),
                "status": status,
                "fault": fault or "",
                "connection": f"{peer[0]}:{peer[1]}",
            }
            for number, method, scope, body, status, fault, peer in self.requests
        ]

    def reset(self) -> None:
        """Back to the start: the bank, the faults, what was kept of requests."""
        self.bank.reset()
        self.faults.clear()
        self.keep(self.bank.settings.kept_requests, forget=True)

    def keep(self, count: int, *, forget: bool = False) -> None:
        """Keep so many requests from now on."""
        self.requests = deque(() if forget else self.requests, maxlen=count)


async def _body(receive: Receive, headers: list[tuple[bytes, bytes]]) -> bytes:
    if not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
        return b""
    parts, size = [], 0
    while size <= MAX_BODY:
        message: Message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def _query(text: bytes) -> dict[str, list[str]]:
    query: dict[str, list[str]] = {}
    if text:
        for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
            query.setdefault(name, []).append(value)
    return query


def _told(name: str, value: str) -> tuple[str, str]:
    if name != "authorization":
        return name, value
    scheme, _, token = value.partition(" ")
    return name, f"{scheme} #{hashlib.sha256(token.encode()).hexdigest()[:12]}"
