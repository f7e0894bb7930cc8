# SPDX-License-Identifier: Apache-2.0
"""Connections that take the usual answer off the wire with little work; they are urllib3's in everything else.

``http.client`` makes an e-mail message of an answer's headers and reads through a small buffer, and urllib3 writes and
checks each header of a request anew: for a page of a list that is more work than the page itself
(``docs/benchmarks.md``). The short way knows one kind of request, a GET, and one kind of answer: status 200, a length,
and nothing that has to be decoded. Whatever looks different is left to ``http.client``, with the same bytes.
"""

from __future__ import annotations

import functools
import http.client
import io
import re
from collections.abc import Mapping
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import IncompleteRead
from urllib3.response import HTTPResponse
from urllib3.util import SKIP_HEADER

BUFFER = 1 << 16
"""Bytes asked of the system at once: nearly always enough for a page of 100 records."""
LONGEST = 8 << 20
"""Bytes of a body that are read at once; a longer one is read by whoever asked for it, in the pieces they like."""

_GIVEN = frozenset({"user-agent", "accept-encoding"})
"""Headers that urllib3 or ``http.client`` would add."""
_FRAMING = frozenset({"host", "content-length", "transfer-encoding"})
_FOLD = re.compile(r"(?<![ \t])[ \t]*\r?\n[ \t]+")
_UNUSUAL = frozenset({"transfer-encoding", "content-encoding", "trailer", "upgrade"})


class WholeAnswer(HTTPResponse):
    """An answer with status 200 whose body has come.

    :param whole: the body, which can be read as well.
    """

    def __init__(self, whole: bytes, headers: list[tuple[str, str]], url: str) -> None:
        body: Any = _Body(whole, headers)
        given: Any = headers
        super().__init__(body, given, original_response=body, **_answer_to(url), status=200, reason="OK", version=11)
        self.whole = whole
        self.version_string = "HTTP/1.1"


class _Body(io.BytesIO):
    """A body that tells urllib3 and requests what they ask an ``http.client.HTTPResponse``."""

    def __init__(self, whole: bytes, headers: list[tuple[str, str]]) -> None:
        super().__init__(whole)
        self._length = len(whole)
        self._headers = headers
        self._is_read = False

    @property
    def msg(self) -> http.client.HTTPMessage:
        """Where requests looks for cookies."""
        message = http.client.HTTPMessage()
        for name, value in self._headers:
            message[name] = value
        return message

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._is_read = self.tell() == self._length
        return data

    def isclosed(self) -> bool:
        """Whether the connection is free again."""
        return self._is_read or self.closed


@functools.cache
def shorter(kind: type[Any]) -> type[Any]:
    """The same kind of connection, with the short way; itself, if that would not know what it shortens."""
    if kind is HTTPConnection:
        return _ShortHTTP
    return _ShortHTTPS if kind is HTTPSConnection else kind


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        while 101 < self.status < 200:  # http.client passes over 100 only; the next request would get the answer
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _ShortWay(HTTPConnection):
    response_class = _Answer
    _asked: str | None = None
    _last: Any = None

    def request(  # type: ignore[override]
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, **how: Any
    ) -> None:
        if self._last is not None and not self._last.isclosed():
            # Given back half read: its rest would be taken for the answer to this request.
            if self.proxy is not None:
                raise http.client.CannotSendRequest  # opened here, it would lead to the proxy and no further
            self.close()
        self._last = None
        usual = method == "GET" and body is None and headers is not None and not how.get("chunked")
        streamed = not how.get("preload_content", True) and not how.get("decode_content", True)
        head = self._head(url, headers or {}) if usual and streamed and self.proxy is None else None
        if head is None:
            self._asked = None
            super().request(method, url, body, headers, **how)
        else:
            self._asked = url
            self.send(head)

    def _head(self, url: str, headers: Mapping[str, str]) -> bytes | None:
        """The request as it is sent; None where it is for others to say how, or that it cannot be."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port != self.default_port:
            host = f"{host}:{self.port}"
        lines = [f"GET {url} HTTP/1.1", f"Host: {host}"]
        names = set()
        for name, value in headers.items():
            if type(value) is not str or value == SKIP_HEADER:
                return None
            names.add(name.lower())
            lines.append(f"{name}: {value}")
        if not (names >= _GIVEN and names.isdisjoint(_FRAMING)):
            return None
        text = "\r\n".join(lines)
        breaks = len(lines) - 1
        if not text.isascii() or "%" in host or text.count("\r") != breaks or text.count("\n") != breaks:
            return None
        return f"{text}\r\n\r\n".encode("ascii")

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        url, self._asked = self._asked, None
        if url is None:
            other = super().getresponse()
            self._last = other._original_response
            return other
        if self.sock.gettimeout() != self.timeout:  # to set it is a call of the system
            self.sock.settimeout(self.timeout)
        wire: Any = self.sock.makefile("rb", BUFFER)
        try:
            start = wire.peek()
            head = start[: start.find(b"\r\n\r\n") + 4]
            described = _described(head)
            if described is None:
                return self._long_way(wire, url)
            headers, length = described
            wire.read(len(head))
            whole = wire.read(length)
        except BaseException:
            wire.close()
            raise
        wire.close()
        if len(whole) != length:
            raise IncompleteRead(len(whole), length - len(whole))
        return WholeAnswer(whole, headers, url)

    def _long_way(self, wire: Any, url: str) -> HTTPResponse:
        answer = self._last = _Answer(self.sock, method="GET")
        answer.fp.close()
        answer.fp = wire  # of which something has been looked at
        try:
            answer.begin()
            headers: Any = [(name, _FOLD.sub(" ", value)) for name, value in answer.msg.items()]
            response = HTTPResponse(
                answer, headers, original_response=answer, **_answer_to(url),
                status=answer.status, reason=answer.reason, version=answer.version,
            )  # fmt: skip
        except BaseException:
            answer.close()  # before what it reads from: Python 3.13 complains of the other order
            raise
        if answer.will_close:
            self.close()  # the answer holds the socket until it is read
        return response


class _ShortHTTP(_ShortWay):
    pass


class _ShortHTTPS(_ShortWay, HTTPSConnection):
    pass


def _answer_to(url: str) -> dict[str, Any]:
    return {"preload_content": False, "decode_content": False, "request_method": "GET", "request_url": url}


def _described(head: bytes) -> tuple[list[tuple[str, str]], int] | None:
    """The headers, and the length of the body; None unless it is the usual answer."""
    if not (head.startswith(b"HTTP/1.1 200 OK\r\n") and head.isascii()):
        return None
    headers, length = [], None
    for line in head[17:-4].decode("ascii").split("\r\n"):
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.lstrip(" \t")
        if not colon or not name.replace("-", "").replace("_", "").isalnum():
            return None
        if not value.replace("\t", " ").isprintable():
            return None
        if name in _UNUSUAL or (name == "connection" and value.lower() != "keep-alive"):
            return None
        if name == "content-length":
            if length is not None or not value.isdecimal():
                return None
            length = int(value) if len(value) < 10 else LONGEST + 1
        headers.append((name, value))
    return None if length is None or length > LONGEST else (headers, length)
