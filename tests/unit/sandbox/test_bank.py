# SPDX-License-Identifier: Apache-2.0
"""Who may call what, and the writing endpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from intergiro_provider.sandbox.bank import Bank, route
from intergiro_provider.sandbox.replies import Reply, Request
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY, Settings

KEYS = (DEFAULT_API_KEY, "reader:transactions", "payer:payments+accounts")
REQUEST_ID = "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10"


class Caller:
    """A bank, and a client of it that has logged in everywhere."""

    def __init__(self, **settings: Any) -> None:
        self.time = 1_763_942_400.0
        given = {"api_keys": KEYS, "transactions": 50, "now": "2025-11-24", **settings}
        self.bank = Bank(Settings().changed(given), clock=lambda: self.time)
        self.tokens = {
            (api, key): self.bank.sessions.login(api, key)["access_token"]
            for api in ("v1", "v3")
            for key in (DEFAULT_API_KEY, "reader", "payer")
        }

    def call(self, method: str, path: str, sent: Any = None, key: str = DEFAULT_API_KEY) -> Reply:
        token = self.tokens[path.split("/")[1], key]
        body = b"" if sent is None else json.dumps(sent).encode()
        request = Request(method, path, {}, {"authorization": f"Bearer {token}"}, body)
        to = route(path)
        return self.bank.refuse(request, to) or self.bank.answer(request, to)

    def ids(self, path: str) -> list[str]:
        return [row["id"] for row in json.loads(self.call("GET", path).body)["data"]]

    def payment(self, **changes: Any) -> dict[str, Any]:
        usual = {
            "request_id": REQUEST_ID,
            "account_id": self.ids("/v3/accounts")[0],
            "amount": 1250,
            "reference": "Räkning 7",
            "counterparty": {"name": "Åsa"},
        }
        return {**usual, **changes}


def field(reply: Reply) -> str:
    assert reply.status == 400, reply.body
    return str(json.loads(reply.body)["errors"][0].get("field", ""))


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
        ("GET", "/v3/transactions/pay", 405),
        ("GET", "/v3/events/nobody", 404),
        ("GET", "/v3/individuals/nobody/payment_methods", 404),
        ("GET", "/v3/accounts/nothing/bank_details", 404),
        ("GET", "/v1/bulk_payments/nothing", 404),
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
    bank, to = Bank(Settings()), route(path)
    request = Request("GET", path)
    assert bank.refuse(request, to) is None
    answer = bank.answer(request, to)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v3/transactions", "/v3/nothing", "/v3/transactions/pay"])
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer nonsense", "Basic x"])
def test_without_a_token_everything_is_401(path: str, sent: str) -> None:
    bank = Bank(Settings())
    answer = bank.refuse(Request("GET", path, headers={"authorization": sent}), route(path))
    assert answer is not None
    assert answer.status == 401
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


def test_a_payment_is_made_once_for_each_request_id() -> None:
    caller = Caller()
    sent = caller.payment()
    first = caller.call("POST", "/v3/transactions/pay", sent)
    caller.time += 5
    again = caller.call("POST", "/v3/transactions/pay", sent)
    assert first.status == again.status == 200
    assert json.loads(first.body) == json.loads(again.body)
    counters = caller.bank.counters
    assert (counters.writes, counters.duplicates) == (1, 1)
    made = json.loads(first.body)
    assert (made["amount"], made["status"], made["created_at"]) == (-1250, "pending", "2025-11-24T00:00:00.000Z")
    assert caller.ids("/v3/transactions")[0] == made["id"]
    assert len(caller.bank.data["v3"].transactions) == 51
    assert caller.call("POST", "/v3/transactions/pay", {**sent, "amount": 1}).status == 409


def test_a_move_between_own_accounts() -> None:
    caller = Caller()
    one, other = caller.ids("/v3/accounts")[:2]
    sent = {"request_id": REQUEST_ID, "account_id": one, "to_account_id": other, "amount": 5, "reference": "x"}
    made = json.loads(caller.call("POST", "/v3/transactions/move", sent).body)
    assert (made["account_id"], made["counterparty"]["account_id"], made["type"]) == (one, other, "move")
    assert field(
        caller.call(
            "POST", "/v3/transactions/move", {**sent, "request_id": REQUEST_ID[:-1] + "1", "to_account_id": "x"}
        )
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"request_id": "7"}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"account_id": "nothing"}, "account_id"),
        ({"amount": 0}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": True}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": None}, "reference"),
        ({"counterparty": "Åsa"}, "counterparty"),
        ({"counterparty": {}}, "name"),
        ({"note": None}, "note"),
    ],
)
def test_payments_that_do_not_validate(changes: dict[str, Any], wanted: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", "/v3/transactions/pay", caller.payment(**changes))) == wanted
    assert caller.bank.counters.writes == 0


@pytest.mark.parametrize("sent", [[], "x", 7])
def test_a_body_that_is_no_object(sent: Any) -> None:
    assert field(Caller().call("POST", "/v3/transactions/pay", sent)) == ""


def test_a_large_payment_needs_a_persons_consent() -> None:
    caller = Caller(pay_consent_above=1000)
    sent = caller.payment(amount=1001)
    refused = caller.call("POST", "/v3/transactions/pay", sent)
    assert refused.status == 412
    consent = json.loads(refused.body)["consent"]
    assert consent.keys() == {"id", "status", "scope", "expires_at"}
    assert (consent["status"], consent["scope"]) == ("pending", ["make_payment"])
    assert json.loads(caller.call("POST", "/v3/transactions/pay", sent).body)["consent"]["id"] == consent["id"]
    assert caller.bank.counters.writes == 0
    method = json.loads(caller.call("POST", f"/v3/consents/{consent['id']}", {"return_url": "https://x.invalid"}).body)
    assert method["method"]["redirect_url"].endswith(consent["id"])
    assert field(caller.call("POST", f"/v3/consents/{consent['id']}", {})) == "return_url"
    assert caller.call("POST", "/v3/consents/nothing", {"return_url": "https://x.invalid"}).status == 404
    assert caller.bank.consents.give() == 1
    assert caller.call("POST", "/v3/transactions/pay", sent).status == 200
    assert caller.call("POST", "/v3/transactions/pay", caller.payment(request_id=REQUEST_ID[:-1] + "1")).status == 412
    assert (
        caller.call(
            "POST", "/v3/transactions/pay", caller.payment(request_id=REQUEST_ID[:-1] + "2", amount=1000)
        ).status
        == 200
    )


def test_a_consent_expires() -> None:
    caller = Caller(payment_methods_consent=True)
    path = f"/v3/individuals/{caller.ids('/v3/individuals')[0]}/payment_methods"
    first = json.loads(caller.call("GET", path).body)["consent"]
    assert first["scope"] == ["read_payment_history"]
    caller.bank.consents.give()
    assert caller.call("GET", path).status == 200
    caller.time += 601
    assert json.loads(caller.call("GET", path).body)["consent"]["id"] != first["id"]
    assert caller.call("GET", "/v3/guests/somebody/payment_methods").status == 200


def batch(caller: Caller, count: int = 2, **changes: Any) -> Reply:
    items = [{"counterparty": {"name": "Åsa"}, "amount": n + 1, "reference": "lön", **changes} for n in range(count)]
    return caller.call("POST", "/v1/bulk_payments", {"account_id": caller.ids("/v1/accounts")[0], "items": items})


def test_batches_wait_for_approval() -> None:
    caller = Caller()
    made = json.loads(batch(caller, 1000, correlation_id="c").body)
    assert (made["status"], made["items_count"], made["amount"]) == ("pending_approval", 1000, 500_500)
    assert json.loads(caller.call("GET", f"/v1/bulk_payments/{made['id']}").body) == made
    assert field(batch(caller, 0)) == field(batch(caller, 1001)) == "items"
    assert field(batch(caller, amount=-1)) == "items.0.amount"
    assert field(batch(caller, correlation_id=None)) == "items.0.correlation_id"
    assert field(batch(caller, counterparty=None)) == "items.0.counterparty"


def test_at_most_a_hundred_batches_wait() -> None:
    caller = Caller()
    for _ in range(100):
        assert batch(caller).status == 200
    assert json.loads(batch(caller).body)["errors"][0]["code"] == "too_many_batches"


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
