# SPDX-License-Identifier: Apache-2.0
"""An informational response (103 Early Hints) before the real one never belongs to another request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from requests.adapters import HTTPAdapter

from intergiro_provider.api.auth_client import AuthClient
from intergiro_provider.api.http import ApiSession
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.api.transport import SkipInterimAdapter
from intergiro_provider.session.effects import Outcome
from tests.unit.api.raw_server import Server

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
BOM = b"\xef\xbb\xbf"


def whole(body: bytes, before: bytes = b"") -> list[bytes]:
    return [before + b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)]  # fmt: skip


def settings(server: Server) -> ApiSettings:
    return ApiSettings(f"http://127.0.0.1:{server.port}", "3d", "live", "key")


@pytest.mark.parametrize("before", [HINTS, HINTS * 3, b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS])
@pytest.mark.parametrize("stream", [False, True])
def test_hints_are_passed_over(server: Server, before: bytes, stream: bool) -> None:
    server.answers = [whole(b'{"a": %d}' % number, before) for number in range(3)]
    session = ApiSession(settings(server), SkipInterimAdapter(pool_maxsize=1))

    assert [session.get("accounts", stream=stream).json() for _ in range(3)] == [{"a": 0}, {"a": 1}, {"a": 2}]
    assert server.connections == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [b"103 Early Hints", b"101 Switching Protocols"])
def test_a_foreign_adapter_loses_the_connection_and_not_the_order(server: Server, stream: bool, status: bytes) -> None:
    server.answers = [whole(b'{"a": 0}', b"HTTP/1.1 " + status + b"\r\n\r\n"), whole(b'{"a": 1}')]
    session = ApiSession(settings(server), HTTPAdapter(pool_maxsize=1))

    with pytest.raises(requests.ConnectionError, match="informational"):
        session.get("accounts", stream=stream)
    assert session.get("accounts").json() == {"a": 1}
    assert server.connections == 2


@pytest.mark.parametrize("call", [AuthClient.log_in, lambda bank: bank.refresh("r")])
@pytest.mark.parametrize("bom", [b"", BOM])
def test_logins_and_refreshes_pass_over_hints_and_byte_order_marks(
    server: Server, call: Callable[[AuthClient], object], bom: bytes
) -> None:
    server.answers = [whole(bom + b'{"access_token": "a", "refresh_token": "b"}', HINTS)]
    made = settings(server)

    answer = call(AuthClient(made, 5.0, lambda: made))
    assert (answer.outcome, answer.access_token, answer.refresh_token) == (Outcome.OK, "a", "b")  # type: ignore[attr-defined]


def test_a_byte_order_mark_does_not_spoil_a_response(server: Server) -> None:
    server.answers = [whole(BOM + b'{"name": "\xc3\x85sa"}')]
    response = ApiSession(settings(server), SkipInterimAdapter()).get("accounts")

    assert response.json() == {"name": "Åsa"}
    assert response.text[0] == "{"
