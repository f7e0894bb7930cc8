# SPDX-License-Identifier: Apache-2.0
"""Pages as raw bytes from a server; `tests/integration/hooks/test_page_getter.py` reads those of a bank."""

from __future__ import annotations

import gzip

import pytest
from requests.adapters import HTTPAdapter

from intergiro_provider.api.http import ApiSession
from intergiro_provider.api.reader import ListReader
from intergiro_provider.api.settings import ApiSettings
from tests.unit.api.raw_server import Server

PAGE = b'{"data": [], "has_more": false}'
ZIPPED = gzip.compress(PAGE)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(PAGE), PAGE),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(ZIPPED), ZIPPED),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PAGE), PAGE),
        b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%b" % (len(PAGE), PAGE),
    ],
    ids=["usual", "gzip", "chunked", "an error"],
)
def test_an_answer_holds_its_body_too(server: Server, answer: bytes) -> None:
    server.answers = [[answer], [answer]]
    origin = f"http://127.0.0.1:{server.port}"
    session = ApiSession(ApiSettings(origin, "3d", "live", "key"), HTTPAdapter(pool_maxsize=1))
    reader = ListReader(session, f"{origin}/list")
    for _ in range(2):
        assert reader.send(reader.request({})).content == PAGE
    assert server.connections == 1
