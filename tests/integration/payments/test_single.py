# SPDX-License-Identifier: Apache-2.0
"""IntergiroPaymentOperator against a bank over real sockets: each payment is made once."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.payments import single
from intergiro_provider.sandbox import Sandbox
from tests.integration.payments.support import BIC, IBAN, NAME, account, context, made, pay
from tests.integration.pulls import Said, bank, said, shared_bank

pytestmark = pytest.mark.integration

__all__ = ["bank", "said", "shared_bank"]  # fixtures


PAY = "/v3/transactions/pay"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "FIRST_PAUSE", 0.01)


@pytest.fixture(autouse=True)
def fresh_run(bank: Sandbox, request: pytest.FixtureRequest) -> str:
    """Reset the bank's transactions, because the tests use the same references."""
    bank.set(seed=bank.settings()["seed"])
    return request.node.name


def written(path: Path) -> dict[str, Any]:
    [file] = path.glob("payment-*.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("operation", ["pay", "move"])
@pytest.mark.parametrize("with_record", [False, True])
def test_a_payment_is_made_once_however_often_the_task_runs(
    bank: Sandbox, tmp_path: Path, operation: str, with_record: bool
) -> None:
    arguments: dict[str, Any] = {"operation": operation}
    if operation == "move":
        arguments["target_account_id"] = account(bank, number=1)
    if with_record:
        arguments["record_path"] = f"file://{tmp_path}"
    first = pay(bank, **arguments)
    again = pay(bank, context(try_number=2), **arguments)
    assert again["payment_id"] == first["payment_id"]
    assert [t["id"] for t in made(bank)] == [first["payment_id"]]
    assert first["amount"] == 125_00
    if with_record:
        assert written(tmp_path)["state"] == "confirmed"


def test_what_the_record_says(bank: Sandbox, tmp_path: Path) -> None:
    result = pay(bank, record_path=f"file://{tmp_path}", approved_by="ada")
    record = written(tmp_path)
    [attempt] = record["attempts"]
    assert record["key"] == result["key"]
    assert (record["payment_id"], record["sha256"], record["amount"]) == (
        result["payment_id"], result["sha256"], 125_00
    )  # fmt: skip
    assert (attempt["outcome"], attempt["status_code"], record["approved_by"]) == ("response received", 200, "ada")
    assert (attempt["sent_by"]["task_id"], attempt["sent_by"]["approved_by"]) == ("pay", "ada")
    assert record["counterparty"] == "SE…7466"
    text = json.dumps(record, ensure_ascii=False)
    assert not any(secret in text for secret in (IBAN, NAME, BIC, "Rent"))


@pytest.mark.parametrize("fault", ["lose_response", "drop", "status", "garbled"])
def test_a_hidden_outcome_is_resolved_in_the_same_try(bank: Sandbox, fault: str) -> None:
    bank.fault(fault, path=PAY, times=1)
    result = pay(bank)
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]


def test_a_hidden_outcome_is_resolved_in_the_next_try(bank: Sandbox) -> None:
    bank.fault("lose_response", path=PAY)
    bank.fault("status", path="/v3/transactions$", status=503)
    with pytest.raises(x.BankUnavailable):
        pay(bank, context(max_tries=1))
    assert len(made(bank)) == 1
    bank.clear_faults()
    result = pay(bank, context(try_number=2, max_tries=1))
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]


@pytest.mark.parametrize("with_record", [False, True])
def test_the_last_try_ends_with_an_unknown_outcome(bank: Sandbox, tmp_path: Path, with_record: bool) -> None:
    bank.fault("status", path=PAY, status=502, times=None)
    extra = {"record_path": f"file://{tmp_path}"} if with_record else {}
    with pytest.raises(x.OutcomeUnknown, match=r"POST /v3/transactions/pay \(idempotency key .*created_from") as caught:
        pay(bank, **extra)
    assert caught.value.key in str(caught.value)
    if with_record:
        assert written(tmp_path)["state"] == "unknown"
        assert [a["outcome"] for a in written(tmp_path)["attempts"]] == ["unknown"] * 3


@pytest.mark.parametrize("change", [
    {"amount": 126_00}, {"reference": "Rents"}, {"counterparty": {"name": NAME, "iban": "DE89370400440532013000",
    "bic": "COBADEFFXXX"}},
])  # fmt: skip
@pytest.mark.parametrize("with_record", [False, True])
def test_another_body_under_the_same_key_is_a_mismatch(
    bank: Sandbox, tmp_path: Path, change: dict[str, Any], with_record: bool
) -> None:
    extra = {"record_path": f"file://{tmp_path}"} if with_record else {}
    first = pay(bank, **extra)
    with pytest.raises(x.PaymentMismatch) as caught:
        pay(bank, context(try_number=2), **extra, **change)
    assert caught.value.payment_id == first["payment_id"]
    assert first["payment_id"] in str(caught.value)
    assert [t["id"] for t in made(bank)] == [first["payment_id"]]
    assert IBAN not in str(caught.value)


def test_a_replayed_response_that_differs_is_a_mismatch(bank: Sandbox) -> None:
    first = pay(bank)
    answer = {"id": first["payment_id"], "amount": -12500, "currency": "EUR", "status": "pending"}
    bank.fault("response", path=PAY, status=200, body=answer)
    with pytest.raises(x.PaymentMismatch, match="differs in amount"):
        pay(bank, amount=1)


@pytest.mark.parametrize("field", [{"request_id": "5d9a1d0e-2f53-5d43-9a3f-0a4c2f5e7b11"}, {"reference": "RENT"}])
def test_a_response_that_may_show_another_payment_is_refused(bank: Sandbox, field: dict[str, str]) -> None:
    """The message does not say "Nothing was paid", because the bank may have changed this payment."""
    bank.fault("response", path=PAY, status=200, body={"id": "t-1", "amount": 12500, "status": "pending", **field})
    with pytest.raises(x.PaymentMismatch, match=f"t-1.*differs in {next(iter(field))}") as caught:
        pay(bank)
    assert "Nothing was paid" not in str(caught.value)


def test_each_attempt_says_who_approved_it(bank: Sandbox, tmp_path: Path) -> None:
    extra = {"record_path": f"file://{tmp_path}"}
    bank.fault("status", path=PAY, status=400, times=1)
    with pytest.raises(x.IntergiroValidationError):
        pay(bank, **extra, approved_by="ada")
    pay(bank, context(try_number=2), **extra, approved_by="bob")
    by = [attempt["sent_by"] for attempt in written(tmp_path)["attempts"]]
    assert [(each["approved_by"], each["try_number"]) for each in by] == [("ada", 1), ("bob", 2)]


def test_a_refused_payment_can_be_corrected_and_cleared(bank: Sandbox, tmp_path: Path) -> None:
    extra = {"record_path": f"file://{tmp_path}"}
    bank.fault("status", path=PAY, status=400, times=1)
    with pytest.raises(x.IntergiroValidationError):
        pay(bank, **extra)
    assert written(tmp_path)["state"] == "refused"
    result = pay(bank, context(try_number=2), amount=5, **extra)
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]


def test_a_rejected_payment_names_the_remedy(bank: Sandbox) -> None:
    answer = {"id": "t-1", "amount": 12500, "status": "rejected"}
    bank.fault("response", path=PAY, status=200, body=answer)
    with pytest.raises(x.PaymentRejected, match=r"t-1.*new run or set another `payment_key`"):
        pay(bank)


class TestKeys:
    """Which tasks share one payment."""

    def test_tasks_runs_and_dags_pay_for_themselves(self, bank: Sandbox) -> None:
        for place in ({}, {"run": "r2"}, {"dag": "other"}, {"task": "other"}):
            pay(bank, context(**place))
        assert len(made(bank)) == 4

    @pytest.mark.parametrize(("scope", "payments"), [("run", 3), ("dag", 2), ("ever", 1)])
    def test_scopes_of_a_payment_key(self, bank: Sandbox, tmp_path: Path, scope: str, payments: int) -> None:
        for place in ({}, {"task": "other"}, {"run": "r2"}, {"dag": "other"}):
            pay(bank, context(**place), payment_key="invoice-17", payment_scope=scope, record_path=f"file://{tmp_path}")
        assert len(made(bank)) == payments

    def test_the_record_keeps_the_key_of_the_first_attempt(self, bank: Sandbox, tmp_path: Path) -> None:
        pay(bank, record_path=f"file://{tmp_path}")
        [file] = tmp_path.glob("payment-*.json")
        record = json.loads(file.read_text())
        former = record["key"].replace(record["key"][:8], "00000000")
        file.write_text(json.dumps({**record, "key": former, "state": "planned", "attempts": []}))
        assert pay(bank, record_path=f"file://{tmp_path}")["key"] == former


class TestTrust:
    """If the key is not trusted, the look-up after `settle` decides."""

    UNTRUSTED = {"key_trusted_for": timedelta(0), "settle": timedelta(seconds=0.5)}  # noqa: RUF012

    def test_a_payment_that_is_found_is_not_sent_again(self, bank: Sandbox, tmp_path: Path) -> None:
        extra = {"record_path": f"file://{tmp_path}"}
        bank.fault("lose_response", path=PAY, times=1)
        pay(bank, **self.UNTRUSTED, **extra)
        pay(bank, context(try_number=2), **self.UNTRUSTED, **extra)
        assert bank.counters().by_path[f"POST {PAY}"] == 1

    def test_one_that_is_not_found_is_sent_again(self, bank: Sandbox, tmp_path: Path) -> None:
        bank.fault("drop", path=PAY, times=1)
        pay(bank, **self.UNTRUSTED, record_path=f"file://{tmp_path}")
        assert len(made(bank)) == 1


def test_a_plan_is_sent_nowhere(bank: Sandbox) -> None:
    plan = pay(bank, dry_run=True)
    assert (plan["count"], plan["totals"]) == (1, {"EUR": 125_00})
    assert not made(bank)
    with pytest.raises(x.IntergiroValueError, match="approved_plan"):
        pay(bank, approved_plan=plan["sha256"], amount=5)
    assert pay(bank, approved_plan=plan["sha256"])["sha256"] == plan["sha256"]


def test_another_currency_than_the_accounts_is_refused(bank: Sandbox) -> None:
    with pytest.raises(x.IntergiroValueError, match="the account is in EUR"):
        pay(bank, currency="SEK")
    assert not made(bank)


def test_nothing_is_logged_of_the_payee(bank: Sandbox, said: Said) -> None:
    bank.fault("lose_response", path=PAY, times=1)
    result = pay(bank)
    text = said() + json.dumps(result)
    assert not any(secret in text for secret in (IBAN, NAME, BIC, "Rent"))
