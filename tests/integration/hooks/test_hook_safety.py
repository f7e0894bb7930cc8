# SPDX-License-Identifier: Apache-2.0
"""The hook sends the bearer token only to the bank, and keeps tokens out of logs and errors."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from intergiro_provider import exceptions as x
from intergiro_provider.sandbox import Sandbox
from tests.integration.hooks.connections import Connect

pytestmark = pytest.mark.integration


class Elsewhere(BaseHTTPRequestHandler):
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({k.lower(): v for k, v in self.headers.items()})
        status = 401 if "refuse" in self.path else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[dict[str, str]]]]:
    handler = type("Handler", (Elsewhere,), {"seen": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("by", ["run", "get_conn", "stream", "pull"])
def test_a_redirect_to_another_host_is_refused(
    sandbox: Sandbox, connect: Connect, elsewhere: tuple[str, list[dict[str, str]]], by: str, status: int
) -> None:
    url, seen = elsewhere
    sandbox.fault("redirect", path="/v3/accounts", to=f"{url}/file", status=status)
    hook = connect()

    with pytest.raises(x.IntergiroResponseError, match=f"a redirect to .*, which is not {sandbox.url}"):
        match by:
            case "pull":
                hook.page_getter("accounts", bytes)({})
            case "get_conn":
                hook.get_conn().get("accounts")
            case _:
                hook.run("accounts", extra_options={"stream": by == "stream", "check_response": False})
    assert seen == []
    assert sandbox.counters().by_path["GET /v3/accounts"] <= 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
@pytest.mark.parametrize("by", ["run", "get_conn"])
def test_a_write_is_redirected_as_it_is_or_not_at_all(sandbox: Sandbox, connect: Connect, status: int, by: str) -> None:
    hook = connect(method="POST")
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]
    counterparty = {"name": "Ada", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}}
    payment = {"account_id": account, "amount": 5, "reference": "rent", "counterparty": counterparty}
    sandbox.fault("redirect", path="/v3/elsewhere", to="/v3/transactions/pay", status=status)

    def write() -> requests.Response:
        if by == "run":
            return hook.run("elsewhere", {**payment, "request_id": str(uuid.uuid4())})
        return hook.get_conn().post("elsewhere", json={**payment, "request_id": str(uuid.uuid4())})

    if status in (307, 308):
        assert write().json()["amount"] in (5, -5)
    else:
        with pytest.raises(x.OutcomeUnknown, match="neither a result" if status == 304 else "drops the method or the"):
            write()
    assert sandbox.counters().writes == (status in (307, 308))
    assert sandbox.counters().by_path["GET /v3/transactions/pay"] == 0


@pytest.mark.parametrize("name", ["if-none-match", "If-Modified-Since"])
def test_304_answers_conditional_requests_only(sandbox: Sandbox, connect: Connect, name: str) -> None:
    sandbox.fault("status", path="/v3/accounts", status=304, body="empty")

    assert connect().run("accounts", headers={name: "x"}).status_code == 304
    with pytest.raises(x.IntergiroResponseError, match="neither a result"):
        connect().run("accounts")


@pytest.mark.parametrize(
    ("to", "what"),
    [("http://[", "not a URL"), ("/v3/transactions/pay", "more than 30 redirects"), ("", "neither a result")],
)
def test_a_redirect_that_leads_nowhere_is_an_error(sandbox: Sandbox, connect: Connect, to: str, what: str) -> None:
    sandbox.fault("response", path="/v3/transactions/pay", status=307, headers={"Location": to} if to else {})

    with pytest.raises(x.IntergiroResponseError, match=what):
        connect(method="POST").run("transactions/pay", {"amount": 5})


@pytest.mark.parametrize("endpoint", ["http://[", "https://[x]:y/transactions"])
def test_an_endpoint_that_is_no_url_is_an_error_of_ours(connect: Connect, endpoint: str) -> None:
    with pytest.raises(x.IntergiroValueError, match="not a valid URL"):
        connect().run(endpoint)
    with pytest.raises(x.IntergiroValueError, match="not a valid URL"):
        next(connect().iter_records(endpoint))


def test_the_session_is_not_used_for_other_hosts(
    sandbox: Sandbox, connect: Connect, elsewhere: tuple[str, list[dict[str, str]]]
) -> None:
    url, seen = elsewhere
    hook = connect()

    with pytest.raises(x.IntergiroValueError, match="another host"):
        hook.get_conn().get(f"{url}/x")
    with pytest.raises(x.IntergiroValueError, match="other hosts"):
        hook.get_conn().send(requests.Request("GET", f"{url}/x").prepare())
    with pytest.raises(x.IntergiroValueError, match="endpoint"):
        hook.run(f"{url}/x")
    assert seen == []
    assert sandbox.counters().logins == 0


def test_bad_settings_are_told_before_any_call(sandbox: Sandbox, connect: Connect) -> None:
    for hook in (connect(fields={"password": ""}), connect(api="4d")):
        with pytest.raises(x.IntergiroValueError):
            hook.run("accounts")
    for limit in (0, 101, "many"):
        with pytest.raises(x.IntergiroValueError, match="limit"):
            list(connect().iter_pages("transactions", {"limit": limit}))
    assert sandbox.counters().requests == 0


def test_no_token_in_logs_or_errors(sandbox: Sandbox, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    hook.run("accounts")
    sandbox.end_sessions()
    sandbox.fault("status", path="/v3/accounts", status=400)
    with pytest.raises(x.IntergiroValidationError) as caught:
        hook.run("accounts")

    secrets = [*sandbox.tokens(), sandbox.api_key]
    assert len(secrets) >= 5
    text = caplog.text + repr(caught.value) + repr(hook.settings) + repr(hook.__dict__)
    assert "generation" in caplog.text
    assert [s for s in secrets if s in text] == []


def test_the_environments_proxy_does_not_see_a_loopback_bank(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert connect().run("accounts").status_code == 200
