# SPDX-License-Identifier: Apache-2.0
"""The hook over real sockets against the sandbox, its session in real Variables."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from intergiro_provider import exceptions as x
from intergiro_provider.hooks import intergiro as module
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session.timings import Timings

pytestmark = pytest.mark.integration

TRANSACTION = "/v3/transactions"
Connect = Callable[..., IntergiroHook]


QUICK = replace(
    Timings(),
    call=2.0,
    lease_round=0.4,
    lease_write=0.4,
    settle_lease=0.5,
    settle_session=2.5,
    critical=15.0,
    repeat=0.3,
    reserve=3.0,
)
"""Nobody else renews in these tests: the waits for rivals may be short."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_timings", lambda: QUICK)


@pytest.fixture
def connect(sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make a hook on a connection of its own, whose extra and fields a test may choose."""

    def make(method: str = "GET", fields: dict[str, Any] | None = None, **extra: Any) -> IntergiroHook:
        conn_id = f"bank_{uuid.uuid4().hex[:8]}"
        connection = {**json.loads(sandbox.connection()), **(fields or {}), "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return IntergiroHook(conn_id, method=method)

    return make


def again(hook: IntergiroHook, method: str = "GET") -> IntergiroHook:
    """Another hook on the same connection, as another task would have."""
    return IntergiroHook(hook.intergiro_conn_id, method=method)


def test_one_login_serves_every_request_and_hook(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()

    assert hook.run("transactions", {"limit": 3}).json()["data"]
    assert hook.run("/v3/accounts").status_code == 200
    assert again(hook).run(f"{sandbox.url}/v3/cards").status_code == 200

    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.unauthorized) == (1, 0, 0)


@pytest.mark.parametrize("sandbox", [{"access_token_life": 1.0}], indirect=True)
def test_requests_survive_expiry_with_one_refresh_each(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    for _ in range(3):
        assert hook.run("accounts").status_code == 200
        sandbox.expire_access_tokens()
    assert hook.get_conn().get(f"{sandbox.url}/v3/accounts").status_code == 200
    assert hook.get_conn().get("accounts", params={"limit": 1}).status_code == 200

    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes) == (1, 3)
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)


def test_a_session_that_has_ended_costs_one_login(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.end_sessions()

    assert hook.run("accounts").status_code == 200
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early, counters.refresh_reused) == (2, 0, 0, 0)
    assert counters.refresh_refused == 1


def test_threads_share_one_renewal(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(hook.run("accounts").status_code)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 16
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_reused) == (1, 1, 0)
    assert counters.connections < 16 + 8


@pytest.mark.parametrize("body", ["json", "text", "bytes", "file", "generator"])
def test_a_body_is_sent_again_whole_after_a_renewal(sandbox: Sandbox, connect: Connect, body: str) -> None:
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]
    payment = {
        "request_id": str(uuid.uuid4()),
        "account_id": account,
        "amount": 100,
        "reference": "rent é",
        "counterparty": {"name": "Ada"},
    }
    text = json.dumps(payment)
    data: Any = {
        "json": payment,
        "text": text,
        "bytes": text.encode(),
        "file": io.BytesIO(text.encode()),
        "generator": (text.encode()[i : i + 7] for i in range(0, len(text.encode()), 7)),
    }[body]
    hook = connect(method="POST")
    again(hook).run("accounts")
    sandbox.expire_access_tokens()

    response = hook.run("transactions/pay", data, headers={"Content-Type": "application/json"})

    assert response.status_code < 300
    counters = sandbox.counters()
    assert (counters.refreshes, counters.writes, counters.duplicates) == (1, 1, 0)


def test_data_is_the_query_of_a_get(sandbox: Sandbox, connect: Connect) -> None:
    connect().run("transactions", {"limit": 2, "statuses": ["completed", "pending"]}, params={"sort_type": "ASC"})

    query = sandbox.requests()[-1]["query"]
    assert "limit=2" in query
    assert "statuses=completed&statuses=pending" in query
    assert "sort_type=ASC" in query


def test_every_request_says_who_we_are(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(headers={"X-Team": "data"})
    hook.run("accounts")
    sandbox.expire_access_tokens()
    hook.run("accounts")

    seen = sandbox.requests()
    assert len(seen) >= 5
    for request in seen:
        headers = {name.lower(): value for name, value in request["headers"]}
        assert headers["user-agent"].startswith("airflow-provider-intergiro/")
        assert headers["x-team"] == "data"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, x.IntergiroValidationError), (403, x.IntergiroForbidden), (409, x.IntergiroClientError)],
)
def test_a_final_error_is_not_tried_again(
    sandbox: Sandbox, connect: Connect, status: int, kind: type[Exception]
) -> None:
    hook = connect()
    sandbox.fault("status", path="/v3/accounts", status=status)

    with pytest.raises(kind):
        hook.run("accounts")
    assert sandbox.counters().by_path["GET /v3/accounts"] == 1


def test_an_unknown_path_is_named_without_its_query(connect: Connect) -> None:
    with pytest.raises(x.IntergiroNotFound, match="GET /v3/nothing") as caught:
        connect().run("nothing", {"account_ids": "DE00123456789"})
    assert "DE00" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("status", {"status": 503}),
        ("status", {"status": 502, "body": "html"}),
        ("rate_limit", {"retry_after": 0}),
        ("drop", {}),
        ("drop_body", {}),
    ],
)
def test_a_passing_fault_is_ridden_out(sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any]) -> None:
    hook = connect()
    sandbox.fault(kind, path="/v3/accounts", times=2, **params)

    assert hook.run("accounts").json()["data"]
    assert sandbox.counters().by_path["GET /v3/accounts"] == 3


def test_a_lasting_fault_is_the_banks_status(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 3)
    hook = connect()
    sandbox.fault("status", path="/v3/accounts", status=503)

    with pytest.raises(x.IntergiroServerError) as caught:
        hook.run("accounts")
    assert caught.value.status_code == 503
    assert sandbox.counters().by_path["GET /v3/accounts"] == 3


def test_retry_after_is_waited_for_and_a_long_one_is_left_to_airflow(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("cards")
    sandbox.fault("rate_limit", path="/v3/accounts", times=1, retry_after=1)
    began = time.monotonic()
    hook.run("accounts")
    assert time.monotonic() - began >= 1

    sandbox.fault("rate_limit", path="/v3/accounts", retry_after=3600, as_date=True)
    began = time.monotonic()
    with pytest.raises(x.IntergiroRateLimited) as caught:
        hook.run("accounts")
    assert time.monotonic() - began < 5
    assert caught.value.retry_after == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    ("kind", "params", "error"),
    [
        ("status", {"status": 503}, x.IntergiroServerError),
        ("rate_limit", {"retry_after": 0}, x.IntergiroRateLimited),
        ("drop", {}, x.BankUnavailable),
        ("lose_answer", {}, x.BankUnavailable),
    ],
)
def test_a_payment_that_may_have_been_made_is_not_sent_again(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any], error: type[Exception]
) -> None:
    hook = connect(method="POST")
    sandbox.fault(kind, path="/v3/consents", times=1, **params)

    with pytest.raises(error):
        hook.run("consents/c-1", {"return_url": "https://example.com"})
    assert sum(n for path, n in sandbox.counters().by_path.items() if path.startswith("POST /v3/consents")) == 1


def test_a_payment_with_a_request_id_is_sent_again_and_made_once(sandbox: Sandbox, connect: Connect) -> None:
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]
    hook = connect(method="POST")
    sandbox.fault("lose_answer", path="/v3/transactions/pay", times=1)

    response = hook.run(
        "transactions/pay",
        {
            "request_id": str(uuid.uuid4()),
            "account_id": account,
            "amount": 5,
            "reference": "rent",
            "counterparty": {"name": "Ada"},
        },
    )

    assert response.status_code < 300
    counters = sandbox.counters()
    assert (counters.by_path["POST /v3/transactions/pay"], counters.duplicates) == (2, 1)


def test_check_response_false_returns_an_error_status(connect: Connect) -> None:
    response = connect().run("nothing", extra_options={"check_response": False})

    assert response.status_code == 404


def test_a_refused_endpoint_of_a_living_session_is_a_permission(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.set(always_401=["/v3/cards"])
    hook = connect()

    with pytest.raises(x.IntergiroAuthError, match="GET /v3/cards"):
        hook.run("cards")
    assert hook.run("accounts").status_code == 200
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early) == (1, 0, 0)


def test_a_consent_is_an_error_of_its_own(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.fault("consent", path="/v3/accounts", times=1, scope="make_payment")

    with pytest.raises(x.IntergiroConsentRequired) as caught:
        connect().run("accounts")
    assert caught.value.consent_id
    assert caught.value.scope == ["make_payment"]


def test_a_wrong_key_is_final_and_not_tried_again(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(fields={"password": "wrong-key-000"})

    for _ in range(2):
        with pytest.raises(x.IntergiroAuthError, match="API key") as caught:
            hook.run("accounts")
        assert "wrong-key-000" not in str(caught.value)
    assert sandbox.counters().login_refused == 1


def test_the_login_budget_ends_with_a_time(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(max_logins_per_hour=2)
    for _ in range(2):
        hook.run("accounts")
        sandbox.end_sessions()

    with pytest.raises(x.LoginBudgetExhausted) as caught:
        hook.run("accounts")
    assert sandbox.counters().logins == 2
    left = caught.value.next_at.timestamp() - time.time()
    assert 3500 < left < 3700
    assert f"{caught.value.next_at:%H:%M:%S}" in str(caught.value)


def test_a_refresh_without_an_answer_is_repeated_once(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault("status", path="/v3/auth/refresh", times=1, status=503)

    assert hook.run("accounts").status_code == 200
    assert (sandbox.counters().logins, sandbox.counters().refreshes) == (1, 1)


@pytest.mark.parametrize(("kind", "params"), [("lose_answer", {}), ("garbled", {"how": "html"}), ("drop_body", {})])
def test_a_rotation_whose_answer_is_lost_costs_one_login(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any]
) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault(kind, path="/v3/auth/refresh", times=1, **params)

    assert hook.run("accounts").status_code == 200
    assert sandbox.counters().logins == 2


@pytest.mark.parametrize(
    ("kind", "params"), [("status", {"status": 503}), ("answer", {"body": "<html>"}), ("drop", {}), ("redirect", {})]
)
def test_an_ill_bank_is_never_answered_with_a_login(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any]
) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    if kind == "redirect":
        params = {"to": f"{sandbox.url}/v3/auth/login"}
    sandbox.fault(kind, path="/v3/auth/refresh", **params)

    with pytest.raises(x.BankUnavailable):
        hook.run("accounts")
    assert sandbox.counters().logins == 1


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


def test_a_hanging_answer_meets_the_read_timeout(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
    hook = connect(read_timeout=0.5)
    sandbox.fault("hang", path="/v3/accounts", seconds=30)

    with pytest.raises(x.BankUnavailable, match="`read_timeout`"):
        hook.run("accounts")
    with pytest.raises(requests.exceptions.Timeout):
        hook.get_conn().get(f"{sandbox.url}/v3/accounts")


def test_nobody_listening_is_an_error_that_names_the_host(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_timings", lambda: replace(QUICK, critical=6.5, reserve=1.0))
    hook = connect(fields={"host": "http://127.0.0.1", "port": 9})

    with pytest.raises(x.BankUnavailable, match="cannot be reached"):
        hook.run("accounts")


@pytest.mark.parametrize("sandbox", [{"transactions": 250}], indirect=True)
def test_pages_and_records(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(method="POST")
    truth = [json.loads(record) for record in sandbox.records(TRANSACTION)]

    pages = list(hook.iter_pages("transactions"))
    records = list(hook.iter_records("transactions", {"limit": 70, "sort_type": "ASC"}))

    assert [len(page) for page in pages] == [100, 100, 50]
    assert sorted(r["id"] for page in pages for r in page) == sorted(r["id"] for r in truth)
    assert records == truth
    assert any(r["amount"] > 2**53 for r in records)


def test_a_plain_array_is_one_page(sandbox: Sandbox, connect: Connect) -> None:
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]

    pages = list(connect().iter_pages(f"accounts/{account}/bank_details"))

    assert len(pages) == 1
    assert isinstance(pages[0][0], dict)


@pytest.mark.parametrize("kind", ["stuck_page", "empty_page", "repeat_record", "garbled"])
def test_a_list_that_would_never_end_or_is_none_is_an_error(sandbox: Sandbox, connect: Connect, kind: str) -> None:
    hook = connect()
    sandbox.fault(kind, path=TRANSACTION)

    with pytest.raises(x.IntergiroResponseError):
        for _ in hook.iter_pages("transactions"):
            pass
    assert sandbox.counters().requests < 10


class TestConnectionTest:
    def test_a_good_key_logs_in_once_and_keeps_nothing(self, sandbox: Sandbox, connect: Connect) -> None:
        hook = connect()

        good, message = hook.test_connection()

        assert good
        assert "counts as one" in message
        assert sandbox.counters().logins == 1
        assert sandbox.counters().requests == 1
        hook.run("accounts")
        assert sandbox.counters().logins == 2

    def test_a_wrong_key(self, sandbox: Sandbox, connect: Connect) -> None:
        good, message = connect(fields={"password": "wrong-key-000"}).test_connection()

        assert not good
        assert "API key" in message
        assert "wrong-key-000" not in message
        assert sandbox.counters().login_refused == 1

    def test_no_key_is_told_without_a_call(self, sandbox: Sandbox, connect: Connect) -> None:
        good, message = connect(fields={"password": ""}).test_connection()

        assert not good
        assert "password" in message
        assert sandbox.counters().requests == 0

    def test_a_host_without_tls_is_told_from_one_that_is_away(self, sandbox: Sandbox, connect: Connect) -> None:
        good, message = connect(fields={"host": "127.0.0.1"}).test_connection()

        assert not good
        assert "TLS handshake failed" in message
        assert "http://" in message
        assert sandbox.counters().logins == 0

    def test_an_unreachable_host(self, connect: Connect) -> None:
        good, message = connect(fields={"port": 9}).test_connection()

        assert not good
        assert "cannot be reached" in message

    def test_an_ill_bank_is_asked_once(self, sandbox: Sandbox, connect: Connect) -> None:
        sandbox.fault("status", path="/v3/auth/login", status=503)

        good, message = connect().test_connection()

        assert not good
        assert "503" in message
        assert sandbox.counters().requests == 1


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


def test_files_and_generators_are_whole_in_every_try(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(method="PUT")
    sandbox.fault("status", path="/v3/accounts", times=1, status=503)
    options = {"check_response": False}
    hook.run("accounts/x", extra_options=options, files={"file": ("a.txt", io.BytesIO(b"whole file"))})
    hook.get_conn().put("accounts/x", data=iter([b"part ", b"by part"]))

    bodies = [r["body"] for r in sandbox.requests() if r["method"] == "PUT"]
    assert len(bodies) == 3
    assert all("whole file" in str(body) for body in bodies[:2])
    sent = [dict(r["headers"]) for r in sandbox.requests() if r["method"] == "PUT"][-1]
    assert "transfer-encoding" not in {name.lower() for name in sent}


@pytest.mark.parametrize("arguments", [{"json": {"amount": float("nan")}}, {"headers": {"X": "a\nb"}}])
def test_a_request_that_cannot_be_made_is_final(sandbox: Sandbox, connect: Connect, arguments: dict[str, Any]) -> None:
    with pytest.raises(x.IntergiroValueError):
        connect(method="POST").run("consents/c", **arguments)
    assert sandbox.counters().by_path.total() == sandbox.counters().logins


def test_a_body_given_twice_is_told(connect: Connect) -> None:
    with pytest.raises(x.IntergiroValueError, match="`data` and `json`"):
        connect(method="POST").run("consents/c", {"a": 1}, json={"b": 2})


def test_a_session_kept_over_a_fork_does_not_mix_answers(sandbox: Sandbox, connect: Connect) -> None:
    import os

    session = connect().get_conn()
    session.get("accounts")
    before = sandbox.counters().connections
    if (child := os.fork()) == 0:
        os._exit(0 if session.get("cards").status_code == 200 else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert sandbox.counters().connections == before + 1


def test_the_environments_proxy_does_not_see_a_loopback_bank(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert connect().run("accounts").status_code == 200
