# SPDX-License-Identifier: Apache-2.0
"""Who may call what, and the writing endpoints."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from intergiro_provider.sandbox.bank import Bank, route
from intergiro_provider.sandbox.replies import Reply, Request
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY, Settings

KEYS = (DEFAULT_API_KEY, "reader:transactions", "payer:payments+accounts")
REQUEST_ID = "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10"
PAYEE = {"name": "Åsa", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}}


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
            "counterparty": PAYEE,
        }
        return {**usual, **changes}

    def accounts(self, api: str = "v3", currency: str = "EUR") -> list[str]:
        return [row["id"] for row in self.bank.data[api].accounts.values if row["currency"] == currency]

    def transactions(self, api: str = "v3", **query: str) -> list[dict[str, Any]]:
        path, headers = f"/{api}/transactions", {"authorization": f"Bearer {self.tokens[api, DEFAULT_API_KEY]}"}
        request = Request("GET", path, {name: [value] for name, value in query.items()}, headers)
        found: list[dict[str, Any]] = json.loads(self.bank.answer(request, route(path)).body)["data"]
        return found


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
    assert caller.call("POST", "/v3/transactions/pay", {**sent, "amount": 1}).status == 409
    assert len(caller.bank.data["v3"].transactions) == 51


def test_the_answer_to_a_payment_is_the_portals() -> None:
    caller = Caller()
    made = json.loads(caller.call("POST", "/v3/transactions/pay", caller.payment()).body)
    assert (made["amount"], made["status"], made["created_at"]) == (1250, "pending", "2025-11-24T00:00:00.000Z")
    assert "request_id" not in made
    [listed] = caller.transactions(limit="1")
    assert listed == {**made, "amount": -1250, "request_id": REQUEST_ID}
    assert listed["counterparty"] == {
        "name": "Åsa",
        "account_id": None,
        "account_details": {"type": "sepa", "iban": PAYEE["account"]["iban"]},  # type: ignore[index]
    }


def test_a_payment_to_an_account_at_the_bank() -> None:
    caller = Caller()
    made = json.loads(
        caller.call(
            "POST", "/v3/transactions/pay", caller.payment(counterparty={"name": "Åsa", "account_id": "x"})
        ).body
    )
    assert made["counterparty"] == {"name": "Åsa", "account_id": "x"}


def a_move(caller: Caller, **changes: Any) -> dict[str, Any]:
    source, target = caller.accounts()[:2]
    usual = {"source_account_id": source, "target_account_id": target, "amount": 5, "reference": "x"}
    return {"request_id": REQUEST_ID, **usual, **changes}


def test_a_move_appears_on_both_accounts() -> None:
    caller = Caller()
    sent = a_move(caller)
    made = json.loads(caller.call("POST", "/v3/transactions/move", sent).body)
    source, target = sent["source_account_id"], sent["target_account_id"]
    assert made["request_id"] == REQUEST_ID
    assert (made["type"], made["status"], made["amount"]) == ("bank-transfer", "pending", -5)
    assert (made["account_id"], made["counterparty"]["account_id"]) == (source, target)
    [credit] = caller.transactions(account_ids=target, limit="1")
    assert (credit["amount"], credit["counterparty"]["account_id"]) == (5, source)
    assert caller.transactions(account_ids=source, limit="1") == [made]


def balance(caller: Caller, account: str, api: str = "v3") -> int:
    return int(json.loads(caller.call("GET", f"/{api}/accounts/{account}").body)["balance"])


def test_payments_change_balances_when_they_complete() -> None:
    caller = Caller(settle_after=60)
    source, target = caller.accounts()[:2]
    before = balance(caller, source), balance(caller, target)
    caller.call("POST", "/v3/transactions/move", a_move(caller))
    caller.call("POST", "/v3/transactions/pay", caller.payment(account_id=source, request_id=str(uuid.uuid4())))
    caller.time += 59
    assert (balance(caller, source), balance(caller, target)) == before
    caller.time += 1
    assert (balance(caller, source), balance(caller, target)) == (before[0] - 5 - 1250, before[1] + 5)
    made = caller.transactions(limit="3")
    assert {row["status"] for row in made} == {"completed"}
    assert {row["updated_at"] for row in made} == {"2025-11-24T00:01:00.000Z"}


@pytest.mark.parametrize("currency", ["EUR", "SEK", "missing"])
def test_a_move_needs_another_account_of_the_same_currency(currency: str) -> None:
    caller = Caller()
    target = (caller.accounts(currency=currency) or ["missing"])[0]  # in EUR, the source itself
    assert field(caller.call("POST", "/v3/transactions/move", a_move(caller, target_account_id=target))) == (
        "target_account_id"
    )


def without(sent: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in sent.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"request_id": "7"}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"account_id": "nothing"}, "account_id"),
        ({"amount": 0}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": None}, "reference"),
        ({"note": "new"}, "note"),
        ({"counterparty": "Åsa"}, "counterparty"),
        ({"counterparty": {}}, "counterparty.name"),
        ({"counterparty": {"name": "Åsa"}}, "counterparty"),
        ({"counterparty": {**PAYEE, "account_id": "x"}}, "counterparty"),
        ({"counterparty": {**PAYEE, "account_id": None}}, "counterparty.account_id"),
        ({"counterparty": {"name": "Åsa", "account": {"iban": "SE1"}}}, "counterparty.account.bic"),
        ({"counterparty": {"name": "Åsa", "account": {"iban": "", "bic": "X"}}}, "counterparty.account.iban"),
        ({"counterparty": {"name": "Åsa", "account_details": {"iban": "SE1"}}}, "counterparty.account_details"),
    ],
)
def test_payments_that_do_not_validate(changes: dict[str, Any], wanted: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", "/v3/transactions/pay", caller.payment(**changes))) == wanted
    assert caller.bank.counters.writes == 0


@pytest.mark.parametrize("name", ["source_account_id", "target_account_id", "amount", "reference", "request_id"])
def test_a_move_needs_each_field(name: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", "/v3/transactions/move", without(a_move(caller), name))) == name
    assert field(caller.call("POST", "/v3/transactions/move", {**a_move(caller), "account_id": "x"})) == "account_id"


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


def batch(caller: Caller, count: int = 2, account: str = "", **changes: Any) -> Reply:
    payee = {"name": "Åsa", "account": {"account_iban": "SE4550000000058398257466", "account_bic": "ESSESESS"}}
    items = [{"counterparty": payee, "amount": n + 1, "reference": "lön", **changes} for n in range(count)]
    sent = {"account_id": account or caller.accounts("v1")[0], "items": items}
    return caller.call("POST", "/v1/bulk_payments", sent)


def test_a_batch_waits_for_approval() -> None:
    caller = Caller()
    made = json.loads(batch(caller, 1000, correlation_id="c").body)
    assert made == {
        "account_id": caller.accounts("v1")[0],
        "id": made["id"],
        "totals_by_currency": {"eur": {"fee": 20_000, "net": 500_500, "total": 520_500}},
    }
    assert caller.bank.counters.writes == 1
    found = caller.transactions("v1", correlation_ids="c", limit="100", statuses="pending_approval")
    assert len(found) == 100
    assert found[0]["counterparty"]["account_details"] == {
        "number": "SE4550000000058398257466",
        "bank_code": "ESSESESS",
    }


def test_without_a_correlation_id_none_is_shown() -> None:
    caller = Caller()
    batch(caller, 1)
    assert "correlation_id" not in caller.transactions("v1", limit="1")[0]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"count": 0}, "items"),
        ({"count": 1001}, "items"),
        ({"amount": -1}, "items.0.amount"),
        ({"correlation_id": None}, "items.0.correlation_id"),
        ({"counterparty": None}, "items.0.counterparty"),
        ({"counterparty": PAYEE}, "items.0.counterparty.account.iban"),
        ({"account": "nothing"}, "account_id"),
    ],
)
def test_batches_that_do_not_validate(changes: dict[str, Any], wanted: str) -> None:
    caller = Caller()
    assert field(batch(caller, **changes)) == wanted
    assert caller.bank.counters.writes == 0


def test_a_batch_is_paid_from_an_account_in_euro() -> None:
    caller = Caller()
    [other, *_] = [row["id"] for row in caller.bank.data["v1"].accounts.values if row["currency"] != "EUR"]
    assert field(batch(caller, account=other)) == "account_id"


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
