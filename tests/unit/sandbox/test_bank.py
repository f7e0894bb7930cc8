# SPDX-License-Identifier: Apache-2.0
"""Roles: which keys may call which endpoints."""

from __future__ import annotations

import json

import pytest

from intergiro_provider.sandbox.app import App
from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.settings import Settings
from tests.unit.sandbox.caller import Caller, send


@pytest.mark.parametrize(
    "path",
    [
        *("/v3/individuals", "/v3/accounts", "/v3/cards", "/v3/transactions", "/v1/accounts", "/v1/transactions"),
        "/v3/guests/somebody/payment_methods",
    ],
)
def test_lists_are_pages(path: str) -> None:
    answer = json.loads(Caller().call("GET", path).body)
    assert set(answer) == {"data", "has_more"}
    assert answer["data"]


def test_what_hangs_below_a_record() -> None:
    caller = Caller()
    individual, account = caller.ids("/v3/individuals")[0], caller.ids("/v3/accounts")[0]
    assert json.loads(caller.call("GET", f"/v3/events/{individual}").body)["data"][0]["name"]
    assert json.loads(caller.call("GET", f"/v3/individuals/{individual}/payment_methods").body)["data"]
    details = json.loads(caller.call("GET", f"/v3/accounts/{account}/bank_details").body)
    assert isinstance(details, list)
    assert details[0]["iban"]


@pytest.mark.parametrize(
    "path", ["/v3/individuals", "/v3/cards", "/v3/transactions", "/v1/accounts", "/v1/transactions"]
)
def test_single_records(path: str) -> None:
    caller = Caller()
    row = json.loads(caller.call("GET", path).body)["data"][3]
    assert json.loads(caller.call("GET", f"{path}/{row['id']}").body) == row
    assert caller.call("GET", f"{path}/nothing").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3/nothing", 404),
        ("GET", "/v3/transactions/", 404),
        ("GET", "/v3//transactions", 404),
        ("GET", "/v1/cards", 404),
        ("POST", "/v1/transactions/pay", 405),
        ("GET", "/v3/bulk_payments", 404),
        ("POST", "/v3/transactions", 405),
        ("DELETE", "/v3/cards", 405),
        ("GET", "/v3/transactions/pay", 404),
        ("GET", "/v3/events/nobody", 404),
        ("GET", "/v3/individuals/nobody/payment_methods", 404),
        ("GET", "/v3/accounts/nothing/bank_details", 404),
        ("GET", "/v1/bulk_payments/nothing", 404),
        ("GET", "/v1/bulk_payments", 405),
        ("POST", "/v3/transactions/pay/more", 404),
    ],
)
def test_paths_that_lead_nowhere(method: str, path: str, status: int) -> None:
    assert Caller().call(method, path, {}).status == status


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/x", 400, "version_too_old"),
        ("/v0", 400, "version_too_old"),
        ("/v4/x", 404, "not_found"),
        ("/", 404, "not_found"),
    ],
)
def test_paths_outside_of_both_apis(path: str, status: int, code: str) -> None:
    answer = send(App(Bank(Settings())), "GET", path)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v3/transactions", "/v3/nothing", "/v3/transactions/pay"])
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer nonsense", "Basic x"])
def test_without_a_token_everything_is_401(path: str, sent: str) -> None:
    bank = Bank(Settings())
    assert send(App(bank), "GET", path, authorization=sent).status == 401
    assert bank.counters.unauthorized == 1


def test_roles_of_keys() -> None:
    caller = Caller()
    assert caller.call("GET", "/v3/transactions", key="reader").status == 200
    assert caller.call("GET", "/v3/accounts", key="reader").status == 403
    assert caller.call("GET", "/v3/individuals", key="reader").status == 200
    assert caller.call("POST", "/v3/transactions/pay", caller.payment(), key="reader").status == 403
    assert caller.call("GET", "/v1/transactions", key="payer").status == 403
    assert caller.call("POST", "/v3/transactions/pay", caller.payment(), key="payer").status == 200
    assert caller.bank.counters.forbidden == 3


def test_a_path_may_answer_401_though_the_token_lives() -> None:
    caller = Caller(always_401=["/v3/cards"])
    assert caller.call("GET", "/v3/cards").status == 401
    assert caller.call("GET", "/v3/cards/x").status == 401
    assert caller.call("GET", "/v3/accounts").status == 200
    assert (caller.bank.counters.unauthorized, caller.bank.counters.permission_401) == (2, 2)


def test_a_changed_seed_makes_other_data_and_reset_the_first_again() -> None:
    caller = Caller()
    before = caller.ids("/v3/transactions")
    caller.bank.change({"latency": 1})
    assert caller.ids("/v3/transactions") == before
    caller.bank.change({"seed": 2})
    assert caller.ids("/v3/transactions") != before
    caller.bank.advance(60)
    caller.bank.reset()
    assert caller.bank.settings.latency == 0
    assert caller.bank.now() == caller.time
    assert caller.call("GET", "/v3/transactions").status == 401
    assert [row["id"] for row in map(json.loads, caller.bank.data["v3"].transactions.rows(range(40, 50)))] == before[
        ::-1
    ]
