# SPDX-License-Identifier: Apache-2.0
"""The effects of faults, on responses and on the connection."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

from starlette.responses import Response
from starlette.types import Receive, Send

from intergiro_provider.sandbox.faults import Fault
from intergiro_provider.sandbox.responses import JSON, as_json, error, too_many

HTML = "text/html"
_BROKEN = {
    "noise": b"\x00\x01{[)(\x02not json at all",
    "html": b"<html><body><h1>Scheduled maintenance</h1></body></html>",
    "empty": b"",
    "not_utf8": b'{"data":["\xff\xfe\xc3"],"has_more":false}',
    "scalar": b"17",
}


class Wire:
    """The connection of one request."""

    def __init__(self, transport: asyncio.Transport | None, receive: Receive, send: Send) -> None:
        self._transport, self._receive, self._send = transport, receive, send

    async def drop(self, *, reset: bool) -> None:
        """Close the connection at once; with `reset`, the peer gets a RST instead of a FIN."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if reset and sock is not None:
                # With SO_LINGER 0, close() sends a RST and discards unsent data.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
            else:
                self._transport.close()
        # Wait until the server has noticed the closed connection. Otherwise it would send its own response.
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def part(self, response: Response, fraction: float, *, reset: bool) -> None:
        """Send the headers, which announce the whole body, and this fraction of it; then drop."""
        headers, body = response.raw_headers, bytes(response.body)
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        part = body[: int(len(body) * fraction)]
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
        if reset:
            await asyncio.sleep(0.02)  # a reset discards data in the socket's buffer
        await self.drop(reset=reset)

    async def hang(self, seconds: float) -> None:
        """Send nothing for this number of seconds, or until the peer disconnects; then drop."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            await self.drop(reset=False)


def replaced(fault: Fault, now: float) -> Response | None:
    """Return the response that replaces the bank's; None for a fault of the connection.

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
        case "response":
            body = params["body"]
            text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            headers = {"content-type": JSON} | {name.lower(): value for name, value in params["headers"].items()}
            return Response(text.encode(), params["status"], headers)
        case "redirect":
            return Response(b"", params["status"], {"location": params["to"]})
    return None


def spoiled(fault: Fault, response: Response) -> Response:
    """Return a successful response with its content changed by a fault."""
    body = bytes(response.body)
    match fault.kind:
        case "garbled":
            how = fault.params["how"]
            broken = body[: max(len(body) * 2 // 3, 1)] if how == "cut" else _BROKEN[how]
            return Response(broken, response.status_code, media_type=HTML if how == "html" else JSON)
        case "empty_page":
            return Response(b'{"data":[],"has_more":true}', response.status_code, media_type=JSON)
        case "repeat_record":
            changed = json.loads(body)
            # Re-encoding is allowed here: no client keeps a page with a repeated record.
            changed["data"] += changed["data"][-1:]
            return as_json(changed)
    return response


def _status(status: int, body: str, headers: dict[str, str]) -> Response:
    match body:
        case "html":
            page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>gateway</body></html>"
            return Response(page, status, headers, media_type=HTML)
        case "text":
            return Response(f"error {status}", status, headers, media_type="text/plain")
        case "empty":
            return Response(b"", status, headers, media_type=JSON)
    return error(status, "fault", f"A fault of the sandbox returns {status}.", headers=headers)
