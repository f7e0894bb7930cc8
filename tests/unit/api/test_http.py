# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import requests

from intergiro_provider.api.http import ApiSession
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.exceptions import OutcomeUnknown
from tests.unit.api.raw_server import Server


def session(**settings: object) -> ApiSession:
    given = {"origin": "https://bank.example", "api": "3d", "environment": "live", "api_key": "key", **settings}
    return ApiSession(ApiSettings(**given), requests.adapters.HTTPAdapter())  # type: ignore[arg-type]


def test_proxies_and_certificates_of_the_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/own.pem")

    made = session()
    assert made.proxies["https"] == "http://proxy.example:3128"
    assert made.verify == "/etc/ssl/own.pem"


def test_the_connections_own_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/own.pem")

    made = session(proxies={"https": "http://own.example:8080"}, verify=False)
    assert made.proxies["https"] == "http://own.example:8080"
    assert made.verify is False


def test_hosts_without_a_proxy_are_spared_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "bank.example")

    assert "https" not in session().proxies


def test_a_netrc_file_never_speaks_for_us(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:
        file.write("machine bank.example login a password b\n")
    monkeypatch.setenv("NETRC", netrc)

    prepared = session().prepare_request(requests.Request("GET", "https://bank.example/v3/accounts"))
    assert "Authorization" not in prepared.headers


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\ncut: 1\r\n\r\n{}",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\ncut: 1\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"cut: not HTTP\r\n\r\n",
    ],
)
def test_a_response_to_a_write_that_cannot_be_read_leaves_its_outcome_unknown(server: Server, cut: bytes) -> None:
    server.answers = [[cut]]
    made = session(origin=f"http://127.0.0.1:{server.port}")

    with pytest.raises(OutcomeUnknown, match="no response") as caught:
        made.post("bulk_payments", json={})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_request_has_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, **kwargs: object) -> requests.Response:  # type: ignore[override]
            seen.append(kwargs["timeout"])
            raise requests.exceptions.ConnectionError

    made = session()
    made.mount("https://", Adapter())
    for timeout in (None, 3):
        with pytest.raises(requests.exceptions.ConnectionError):
            made.get("https://bank.example/v3/accounts", timeout=timeout)
    assert seen == [(5.0, 60.0), 3]
