# SPDX-License-Identifier: Apache-2.0
"""Moves, payments and batches."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.unit.sandbox.caller import BULK, MOVE, PAY, PAYEE, REQUEST_ID, Caller, field


def test_a_payment_is_made_once_for_each_request_id() -> None:
    caller = Caller()
    sent = caller.payment()
    first = caller.call("POST", PAY, sent)
    caller.time += 5
    again = caller.call("POST", PAY, sent)
    assert first.status == again.status == 200
    assert json.loads(first.body) == json.loads(again.body)
    counters = caller.bank.counters
    assert (counters.writes, counters.duplicates) == (1, 1)
    assert caller.call("POST", PAY, {**sent, "amount": 1}).status == 409
    assert len(caller.bank.data["v3"].transactions) == 51


def test_the_answer_to_a_payment_is_the_portals() -> None:
    caller = Caller()
    made = json.loads(caller.call("POST", PAY, caller.payment()).body)
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
    made = json.loads(caller.call("POST", PAY, caller.payment(counterparty={"name": "Åsa", "account_id": "x"})).body)
    assert made["counterparty"] == {"name": "Åsa", "account_id": "x"}


def test_a_move_appears_on_both_accounts() -> None:
    caller = Caller()
    sent = caller.move()
    made = json.loads(caller.call("POST", MOVE, sent).body)
    source, target = sent["source_account_id"], sent["target_account_id"]
    assert made["request_id"] == REQUEST_ID
    assert (made["type"], made["status"], made["amount"]) == ("bank-transfer", "pending", -5)
    assert (made["account_id"], made["counterparty"]["account_id"]) == (source, target)
    [credit] = caller.transactions(account_ids=target, limit="1")
    assert (credit["amount"], credit["counterparty"]["account_id"]) == (5, source)
    assert caller.transactions(account_ids=source, limit="1") == [made]


def test_payments_change_balances_when_they_complete() -> None:
    caller = Caller(settle_after=60)
    source, target = caller.accounts()[:2]
    before = caller.balance(source), caller.balance(target)
    caller.call("POST", MOVE, caller.move())
    caller.call("POST", PAY, caller.payment(account_id=source, request_id=str(uuid.uuid4())))
    caller.time += 59
    assert (caller.balance(source), caller.balance(target)) == before
    caller.time += 1
    assert (caller.balance(source), caller.balance(target)) == (before[0] - 5 - 1250, before[1] + 5)
    made = caller.transactions(limit="3")
    assert {row["status"] for row in made} == {"completed"}
    assert {row["updated_at"] for row in made} == {"2025-11-24T00:01:00.000Z"}


@pytest.mark.parametrize("currency", ["EUR", "SEK", "missing"])
def test_a_move_needs_another_account_of_the_same_currency(currency: str) -> None:
    caller = Caller()
    target = (caller.accounts(currency=currency) or ["missing"])[0]  # in EUR, the source itself
    assert field(caller.call("POST", MOVE, caller.move(target_account_id=target))) == ("target_account_id")


def test_a_batch_waits_for_approval() -> None:
    caller = Caller()
    made = json.loads(caller.call("POST", BULK, caller.batch(1000, correlation_id="c")).body)
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
    caller.call("POST", BULK, caller.batch(1))
    assert "correlation_id" not in caller.transactions("v1", limit="1")[0]


def test_a_batch_is_paid_from_an_account_in_euro() -> None:
    caller = Caller()
    [other, *_] = [row["id"] for row in caller.bank.data["v1"].accounts.values if row["currency"] != "EUR"]
    assert field(caller.call("POST", BULK, caller.batch(account=other))) == "account_id"


def test_at_most_a_hundred_batches_wait() -> None:
    caller = Caller()
    for _ in range(100):
        assert caller.call("POST", BULK, caller.batch()).status == 200
    assert json.loads(caller.call("POST", BULK, caller.batch()).body)["errors"][0]["code"] == "too_many_batches"


@pytest.mark.parametrize(
    ("mode", "changes", "status", "payments"),
    [
        ("keep", {}, 200, 1),
        ("keep", {"amount": 7}, 409, 1),
        ("replay", {}, 200, 1),
        ("replay", {"amount": 7}, 200, 1),
        ("conflict", {}, 409, 1),
        ("ignore", {}, 200, 2),
        ("ignore", {"amount": 7}, 200, 2),
    ],
)
def test_a_request_id_that_comes_again(mode: str, changes: dict[str, Any], status: int, payments: int) -> None:
    caller = Caller(idempotency=mode)
    first = caller.call("POST", PAY, caller.payment())
    again = caller.call("POST", PAY, caller.payment(**changes))
    assert again.status == status
    assert (again.body == first.body) is (status == 200 and payments == 1)
    assert (caller.bank.counters.writes, caller.bank.counters.duplicates) == (payments, 2 - payments)
    assert len(caller.bank.data["v3"].transactions) == 50 + payments


@pytest.mark.parametrize("mode", ["keep", "replay", "conflict"])
def test_a_request_id_may_be_forgotten(mode: str) -> None:
    caller = Caller(idempotency=mode, idempotency_life=30)
    caller.call("POST", PAY, caller.payment())
    caller.time += 29
    caller.call("POST", PAY, caller.payment())
    assert caller.bank.counters.writes == 1
    caller.time += 1
    assert caller.call("POST", PAY, caller.payment()).status == 200
    assert caller.bank.counters.writes == 2


def test_batches_are_approved_or_rejected() -> None:
    caller = Caller(settle_after=60, max_waiting_batches=1)
    account = caller.accounts("v1")[0]
    before = caller.balance(account, "v1")
    assert caller.call("POST", BULK, caller.batch(correlation_id="no")).status == 200
    assert caller.call("POST", BULK, caller.batch()).status == 400
    assert caller.bank.payments.decide(approve=False) == 1
    assert {row["status"] for row in caller.transactions("v1", correlation_ids="no")} == {"rejected"}
    assert caller.call("POST", BULK, caller.batch(correlation_id="yes")).status == 200
    assert caller.bank.payments.decide(approve=True) == 1
    assert {row["status"] for row in caller.transactions("v1", correlation_ids="yes")} == {"pending"}
    caller.time += 60
    assert {row["status"] for row in caller.transactions("v1", correlation_ids="yes")} == {"completed"}
    assert caller.balance(account, "v1") == before - (1 + 2) - 2 * 20


def test_items_may_be_found_by_their_correlation_ids_only_later() -> None:
    caller = Caller(correlation_delay=60)
    caller.call("POST", BULK, caller.batch(2, correlation_id="c"))
    assert [row["correlation_id"] for row in caller.transactions("v1", limit="2")] == ["c", "c"]
    for seconds, found in ((0, 0), (59, 0), (1, 2)):
        caller.time += seconds
        assert len(caller.transactions("v1", correlation_ids="c")) == found


def test_the_filter_may_be_ignored() -> None:
    caller = Caller(correlation_ids_ignored=True)
    assert len(caller.transactions("v1", correlation_ids="nothing")) == 10
    assert len(caller.transactions("v1", correlation_ids="nothing", account_ids="nothing")) == 0
