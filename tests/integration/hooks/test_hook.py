# SPDX-License-Identifier: Apache-2.0
"""The hook over real sockets against the sandbox: requests, errors, retries, lists."""

from __future__ import annotations

import io
import json
import multiprocessing
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import requests

from intergiro_provider import exceptions as x
from intergiro_provider.hooks import intergiro as module
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from tests.integration.hooks.connections import TRANSACTION, Connect
from tests.timings import ALONE

pytestmark = pytest.mark.integration


def test_data_is_the_query_of_a_get(sandbox: Sandbox, connect: Connect) -> None:
    connect().run("transactions", {"limit": 2, "statuses": ["completed", "pending"]}, params={"sort_type": "ASC"})

    query = sandbox.requests()[-1]["query"]
    assert "limit=2" in query
    assert "statuses=completed&statuses=pending" in query
    assert "sort_type=ASC" in query


def test_the_query_of_the_endpoint_and_the_other_one_are_one(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("transactions?statuses=a%20b&limit=2", {"created_from": None, "flag": True, "sort_type": "ASC"})
    assert sandbox.requests()[-1]["query"] == "statuses=a+b&limit=2&flag=true&sort_type=ASC"
    list(hook.iter_records("transactions?limit=100", {"statuses": ["pending"]}))
    assert {"limit=100", "statuses=pending"} <= set(sandbox.requests()[-1]["query"].split("&"))


@pytest.mark.parametrize(
    ("endpoint", "query"),
    [("transactions", {"account_ids": []}), ("transactions?limit=1", {"limit": 2}), ("transactions?account_ids=", {})],
)
def test_a_query_that_would_ask_for_more_than_was_meant_is_refused(
    sandbox: Sandbox, connect: Connect, endpoint: str, query: dict[str, Any]
) -> None:
    hook = connect()
    for call in (hook.run, lambda *arguments: list(hook.iter_records(*arguments))):
        with pytest.raises(x.IntergiroValueError, match=r"`(account_ids|limit)`"):
            call(endpoint, query)
    assert sandbox.requests() == []


def test_records_in_an_order_that_changes_are_refused(connect: Connect) -> None:
    with pytest.raises(x.IntergiroValueError, match="`sort_by` is `updated_at`"):
        next(connect().iter_records("transactions", {"sort_by": "updated_at"}))


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
    assert time.monotonic() - began < 600
    assert caught.value.retry_after == pytest.approx(3600, abs=600)


def test_a_payment_with_a_request_id_is_sent_again_and_made_once(sandbox: Sandbox, connect: Connect) -> None:
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]
    hook = connect(method="POST")
    sandbox.fault("lose_response", path="/v3/transactions/pay", times=1)

    response = hook.run(
        "transactions/pay",
        {
            "request_id": str(uuid.uuid4()),
            "account_id": account,
            "amount": 5,
            "reference": "rent",
            "counterparty": {"name": "Ada", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}},
        },
    )

    assert response.status_code < 300
    counters = sandbox.counters()
    assert (counters.by_path["POST /v3/transactions/pay"], counters.duplicates) == (2, 1)


def test_check_response_false_returns_an_error_status(connect: Connect) -> None:
    response = connect().run("nothing", extra_options={"check_response": False})

    assert response.status_code == 404


def test_a_consent_is_an_error_of_its_own(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.fault("consent", path="/v3/accounts", times=1, scope="make_payment")

    with pytest.raises(x.IntergiroConsentRequired) as caught:
        connect().run("accounts")
    assert caught.value.consent_id
    assert caught.value.scope == ["make_payment"]


def test_a_hanging_answer_meets_the_read_timeout(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
    connect().run("accounts")  # creates a session
    hook = connect(read_timeout=0.5)
    sandbox.fault("hang", path="/v3/accounts", seconds=300)

    with pytest.raises(x.BankUnavailable, match="`read_timeout`"):
        hook.run("accounts")
    with pytest.raises(requests.exceptions.Timeout):
        hook.get_conn().get(f"{sandbox.url}/v3/accounts")


def test_nobody_listening_is_an_error_that_names_the_host(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_timings", lambda: replace(ALONE, critical=2.0, reserve=1.0))
    hook = connect(fields={"host": "http://127.0.0.1", "port": 9})

    with pytest.raises(x.BankUnavailable, match=r"cannot be reached.* whether http://127\.0\.0\.1:9 can be"):
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
        assert "This test was a login" in message
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


def test_a_file_in_a_form_is_whole_in_every_try(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(method="PUT")
    sandbox.fault("status", path="/v3/accounts", times=1, status=503)
    options = {"check_response": False}
    hook.run("accounts/x", extra_options=options, files={"file": ("a.txt", io.BytesIO(b"whole file"))})

    bodies = [str(r["body"]) for r in sandbox.requests() if r["method"] == "PUT"]
    assert ["whole file" in body for body in bodies] == [True, True]


@pytest.mark.parametrize("body", [io.BytesIO(b"{}"), iter([b"{", b"}"])])
def test_a_body_that_could_not_be_sent_again_is_refused(sandbox: Sandbox, connect: Connect, body: Any) -> None:
    hook = connect(method="POST")
    with pytest.raises(x.IntergiroValueError, match="Give its content: bytes, str, or `json`"):
        hook.run("consents/c", body)
    with pytest.raises(x.IntergiroValueError, match="POST /v3/consents/c"):
        hook.get_conn().post("consents/c", data=body)
    assert sandbox.counters().requests == 0


@pytest.mark.parametrize("arguments", [{"json": {"amount": float("nan")}}, {"headers": {"X": "a\nb"}}])
def test_a_request_that_cannot_be_made_is_final(sandbox: Sandbox, connect: Connect, arguments: dict[str, Any]) -> None:
    with pytest.raises(x.IntergiroValueError):
        connect(method="POST").run("consents/c", **arguments)
    assert sandbox.counters().by_path.total() == sandbox.counters().logins


def test_a_body_given_twice_is_told(connect: Connect) -> None:
    with pytest.raises(x.IntergiroValueError, match="`data` and `json`"):
        connect(method="POST").run("consents/c", {"a": 1}, json={"b": 2})


def three_accounts(hook: IntergiroHook) -> Any:
    return hook.run("accounts", {"limit": 3}).json()


def test_a_hook_goes_to_another_process_and_works_there(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    here = three_accounts(hook)

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(three_accounts, hook).result() == here
    assert sandbox.counters().logins == 1
