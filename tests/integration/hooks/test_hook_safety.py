# SPDX-License-Identifier: Apache-2.0
"""What the hook never does: the bearer stays with the bank, tokens stay out of logs and errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

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


@pytest.mark.parametrize("path", ["/file", "/refuse"])
def test_a_redirect_elsewhere_does_not_take_the_bearer_along(
    sandbox: Sandbox, connect: Connect, elsewhere: tuple[str, list[dict[str, str]]], path: str
) -> None:
    url, seen = elsewhere
    sandbox.fault("redirect", path="/v3/accounts", to=f"{url}{path}", status=302)

    response = connect().run("accounts", extra_options={"check_response": False})

    assert response.status_code == (401 if "refuse" in path else 200)
    assert len(seen) == 1
    assert "authorization" not in seen[0]
    assert sandbox.counters().refreshes == 0


def test_a_body_is_not_redirected_elsewhere(
    sandbox: Sandbox, connect: Connect, elsewhere: tuple[str, list[dict[str, str]]]
) -> None:
    url, seen = elsewhere
    sandbox.fault("redirect", path="/v3/consents", to=f"{url}/x", status=307)

    with pytest.raises(x.IntergiroResponseError, match="another host"):
        connect(method="POST").run("consents/c", {"return_url": "https://example.com"})
    assert seen == []


def test_the_session_is_not_used_for_other_hosts(
    sandbox: Sandbox, connect: Connect, elsewhere: tuple[str, list[dict[str, str]]]
) -> None:
    url, seen = elsewhere
    hook = connect()

    with pytest.raises(x.IntergiroValueError, match="other hosts"):
        hook.get_conn().get(f"{url}/x")
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
