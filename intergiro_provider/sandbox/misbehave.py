# SPDX-License-Identifier: Apache-2.0
"""What faults do to an answer, and what they do on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from intergiro_provider.sandbox.faults import Fault
from intergiro_provider.sandbox.replies import JSON, Reply, error

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HTML = "text/html; charset=utf-8"
_BROKEN = {
    "noise": b"\x00\x01{[)(\x02not json at all",
    "html": b"<html><body><h1>Scheduled maintenance</h1></body></html>",
    "empty": b"",
    "not_utf8": b'{"data":["\xff\xfe\xc3"],"has_more":false}',
    "scalar": b"17",
}


class Wire:
    """One request's side of a connection."""

    def __init__(self, transport: asyncio.Transport | None, receive: Receive, send: Send) -> None:
        self._transport, self._receive, self._send = transport, receive, send

    async def reply(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def drop(self, *, reset: bool) -> None:
        """Close the connection, whatever was or was not sent; `reset` makes the peer see a reset instead of an end."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if reset and sock is not None:
                # Closing a socket that lingers for zero seconds sends a reset and forgets what was not sent.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
            else:
                self._transport.close()
        # Until the server has seen the connection go; else it would try to send an answer of its own.
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def part(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, *, reset: bool) -> None:
        """Send the head, which announces more, and this much of the body; then drop."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if reset:
            await asyncio.sleep(0.02)  # a reset overtakes what is still in the socket's buffer
        await self.drop(reset=reset)

    async def hang(self, seconds: float) -> None:
        """Say nothing for so long, or until the peer goes away; then drop."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            await self.drop(reset=False)


def replaced(fault: Fault, now: float) -> Reply | None:
    """The answer that a fault gives instead of the bank's; None for a fault that acts on the wire.

    :param now: epoch seconds of the bank's Date header.
    """
    params = fault.params
    match fault.kind:
        case "status":
            headers = {} if params["retry_after"] is None else {"retry-after": str(params["retry_after"])}
            return _status(params["status"], params["body"], headers)
        case "rate_limit":
            seconds = params["retry_after"]
            form = "none" if seconds is None else "date" if params["as_date"] else "seconds"
            return too_many(seconds or 0, form, now)
        case "answer":
            body = params["body"]
            text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            headers = {name.lower(): value for name, value in params["headers"].items()}
            return Reply(params["status"], text.encode(), headers.pop("content-type", JSON), headers)
        case "redirect":
            return Reply(params["status"], b"", HTML, {"location": params["to"]})
    return None


def spoiled(fault: Fault, reply: Reply) -> Reply:
    """A good answer after a fault has changed its content."""
    match fault.kind:
        case "garbled":
            how = fault.params["how"]
            body = reply.body[: max(len(reply.body) * 2 // 3, 1)] if how == "cut" else _BROKEN[how]
            return replace(reply, body=body, content_type=HTML if how == "html" else JSON)
        case "empty_page":
            return replace(reply, body=b'{"data":[],"has_more":true}', rows=0)
        case "repeat_record":
            answer = json.loads(reply.body)
            # Re-encoding is good enough here: nobody keeps a page that has a record twice.
            answer["data"] += answer["data"][-1:]
            return replace(reply, body=json.dumps(answer, ensure_ascii=False).encode())
    return reply


def too_many(seconds: float, form: str, now: float) -> Reply:
    """429, with Retry-After as `seconds`, as a `date` or not at all (`none`)."""
    headers = {}
    if form == "seconds":
        headers["retry-after"] = f"{seconds:g}"
    elif form == "date":
        headers["retry-after"] = formatdate(now + seconds, usegmt=True)
    return error(429, "too_many_requests", "Too many requests.", headers=headers)


def http_date(now: float) -> str:
    """Epoch seconds as a Date header."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))


def _status(status: int, body: str, headers: dict[str, str]) -> Reply:
    match body:
        case "html":
            page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>gateway</body></html>"
            return Reply(status, page.encode(), HTML, headers)
        case "text":
            return Reply(status, f"error {status}".encode(), "text/plain; charset=utf-8", headers)
        case "empty":
            return Reply(status, b"", JSON, headers)
    return error(status, "fault", f"The sandbox was asked to answer {status}.", headers=headers)
