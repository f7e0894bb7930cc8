# SPDX-License-Identifier: Apache-2.0
"""A proxy to an object store, which knows the operations of S3 and applies faults to selected ones."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

How = Literal["drop", "lose", "late", "slow", "cut"] | int
"""An error status; `drop`: not carried out, no response; `lose`: carried out, no response; `late`: no response, and
carried out at :meth:`Wire.settle`; `slow`: carried out after :attr:`Fault.seconds`; `cut`: half of the response."""


@dataclass
class Fault:
    """A fault of requests.

    :param operation: the operation of S3, such as ``upload part``; empty: any. :param piece: a part of the key.
    :param times: the number of faults; None: always. :param skip: the number of such requests that pass before.
    """

    how: How
    operation: str = ""
    piece: str = ""
    times: int | None = None
    skip: int = 0
    seconds: float = 0.0
    struck: int = 0


@dataclass(frozen=True)
class Request:
    """A request that was received. `user` is the id of the access key of its signature."""

    operation: str
    key: str
    user: str


_CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


@dataclass
class Wire:
    """Listens on a loopback port and forwards requests to another port.

    :attr:`seen`: every request, in order. :attr:`before`: called before each request; False: it is not carried out.
    """

    target: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    before: Callable[[Request], bool | None] = lambda request: None

    def __enter__(self) -> Self:
        wire = self

        class Handler(_Handler):
            network = wire

        self._lock = threading.Lock()
        self._late: list[Callable[[], object]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.settle()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def fault(self, how: How, operation: str = "", piece: str = "", **more: float | None) -> Fault:
        """Add a fault."""
        self.faults.append(fault := Fault(how, operation, piece, **more))  # type: ignore[arg-type]
        return fault

    def settle(self) -> None:
        """Carry out the requests that are late."""
        while self._late:
            self._late.pop(0)()

    def fault_of(self, request: Request) -> Fault | None:
        """Return the fault for this request; None if there is none."""
        with self._lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.operation not in ("", request.operation) or fault.piece not in request.key:
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times is None or fault.struck < fault.times:
                    fault.struck += 1
                    return fault
        return None

    def later(self, work: Callable[[], object]) -> None:
        self._late.append(work)


class _Handler(BaseHTTPRequestHandler):
    network: Wire
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self._operation(), unquote(urlsplit(self.path).path), self._user())
        network = self.network
        fault = network.fault_of(request)
        if network.before(request) is False:
            self._hang_up()
        elif fault is None:
            self._answer(*self._pass_on(body))
        elif isinstance(fault.how, int):
            code = _CODES[fault.how]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} of a test</Message></Error>"
            self._answer(
                fault.how, {"Content-Type": "application/xml"}, b"" if self.command == "HEAD" else text.encode()
            )
        elif fault.how == "slow":
            time.sleep(fault.seconds)
            self._answer(*self._pass_on(body))
        elif fault.how == "cut":
            status, headers, answer = self._pass_on(body)
            self._answer(status, headers, answer, len(answer) // 2)
            self._hang_up()
        else:
            if fault.how == "lose":
                self._pass_on(body)
            elif fault.how == "late":
                network.later(lambda: self._pass_on(body))
            self._hang_up()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def _user(self) -> str:
        return self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]

    def _operation(self) -> str:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        copies = "x-amz-copy-source" in self.headers
        if "uploads" in query:
            return "create upload" if self.command == "POST" else "list uploads"
        if "uploadId" in query:
            whole = {"PUT": "upload part", "POST": "complete upload", "DELETE": "abort upload"}[self.command]
            return "copy part" if copies else whole
        if self.command == "GET":
            return "list" if "list-type" in query else "get"
        return "copy" if copies else {"POST": "delete many"}.get(self.command, self.command.lower())

    def _pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        behind = http.client.HTTPConnection("127.0.0.1", self.network.target, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", *_HOP)}
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return answer.status, kept, answer.read()
        finally:
            behind.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, first: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:first])

    def _hang_up(self) -> None:
        """Close the connection with a reset, so that the client does not wait."""
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        except OSError:
            pass

    def log_message(self, *args: object) -> None:
        pass
