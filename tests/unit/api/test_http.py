# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import requests

from intergiro_provider.api.http import ApiSession
from intergiro_provider.api.settings import ApiSettings


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
