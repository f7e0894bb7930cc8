# SPDX-License-Identifier: Apache-2.0
"""IntergiroBulkPaymentOperator against a bank over real sockets: each item is paid once, or the outcome is unknown."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from intergiro_provider import exceptions as x
from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator
from intergiro_provider.payments import batches, look_up
from intergiro_provider.payments import bulk as bulk_module
from intergiro_provider.sandbox import Sandbox
from tests.integration.interrupting import interrupted_when
from tests.integration.payments.support import BIC, IBAN, NAME, PAYEE, account, context
from tests.integration.pulls import Said, said

pytestmark = pytest.mark.integration
__all__ = ["said"]  # fixtures

BULK = "/v1/bulk_payments"
SETTLE = timedelta(seconds=1)


@pytest.fixture(scope="module")
def shared(airflow_db: Path) -> Iterator[Sandbox]:
    with Sandbox(transactions=10, access_token_life=600.0, login_limit=50, login_window=60.0) as bank:
        yield bank


@pytest.fixture
def bank(shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("AIRFLOW_CONN_BULK_BANK", shared.connection(api="2d", max_logins_per_hour=50))
    monkeypatch.setattr(batches, "BATCH_SIZE", 4)
    shared.reset_counters()
    yield shared
    shared.clear_faults()
    shared.set(correlation_delay=0.0, correlation_ids_ignored=False, max_waiting_batches=100)
    shared.approve_batches()


def items(count: int, reference: str = "Wages") -> list[dict[str, Any]]:
    return [{"counterparty": PAYEE, "amount": 100 + n, "reference": f"{reference} {n}"} for n in range(count)]


def bulk(bank: Sandbox, path: Path, given: Any, where: Any = None, **arguments: Any) -> dict[str, Any]:
    operator = IntergiroBulkPaymentOperator(
        task_id="pay", account_id=account(bank, "v1"), items=given, record_path=f"file://{path}",
        intergiro_conn_id="bulk_bank", **{"settle": SETTLE, **arguments},
    )  # fmt: skip
    return operator.execute(where or context(run=str(path)))


def paid(bank: Sandbox, reference: str = "Wages") -> Counter[str]:
    made = map(json.loads, bank.records("/v1/transactions"))
    return Counter(t["reference"] for t in made if t["reference"].startswith(f"{reference} "))


def requests(bank: Sandbox) -> int:
    return bank.counters().by_path.get(f"POST {BULK}", 0)


def state(path: Path) -> dict[str, Any]:
    return next(
        content for file in path.glob("payment-*.json")
        if (content := json.loads(file.read_text()))["kind"] == "bulk"
    )  # fmt: skip


def test_items_are_split_and_handed_in_once(bank: Sandbox, tmp_path: Path, said: Said) -> None:
    given = items(10, "A")
    result = bulk(bank, tmp_path, given)
    random.Random(1).shuffle(given)
    again = bulk(bank, tmp_path, given, context(run=str(tmp_path), try_number=2))
    assert again == result
    assert (result["count"], result["totals"], len(result["batches"])) == (10, {"EUR": 1045}, 3)
    assert paid(bank, "A") == Counter({f"A {n}": 1 for n in range(10)})
    text = json.dumps(result) + said() + "".join(f.read_text() for f in tmp_path.iterdir())
    assert not any(secret in text for secret in (IBAN, NAME, BIC))


@pytest.mark.parametrize("fault", ["lose_response", "status"])
@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_hidden_batch_is_found_and_adopted(bank: Sandbox, tmp_path: Path, fault: str, delay: float) -> None:
    name = f"B{fault}{delay}"
    bank.set(correlation_delay=delay)
    bank.fault(fault, path=BULK, skip=1, times=1, **({"status": 502, "handled": True} if fault == "status" else {}))
    bulk(bank, tmp_path, items(10, name))
    assert requests(bank) == 3
    assert paid(bank, name) == Counter({f"{name} {n}": 1 for n in range(10)})
    assert [b["state"] for b in state(tmp_path)["batches"]] == ["confirmed"] * 3


def test_a_batch_that_appears_after_settle_is_unknown_and_adopted_later(bank: Sandbox, tmp_path: Path) -> None:
    bank.set(correlation_delay=500.0)
    bank.fault("lose_response", path=BULK, times=1)
    with pytest.raises(x.OutcomeUnknown, match=r"batch 1 of 3: of 4 items, 0 are found.*set `resend_after`"):
        bulk(bank, tmp_path, items(10, "C"))
    assert requests(bank) == 1
    bank.set(correlation_delay=0.0)
    bank.advance(500.0)
    bulk(bank, tmp_path, items(10, "C"), context(run=str(tmp_path), try_number=2))
    assert paid(bank, "C") == Counter({f"C {n}": 1 for n in range(10)})
    bank.reset()  # also its clock


def test_a_task_that_times_out_ends_at_once_and_the_next_try_looks_the_batch_up(bank: Sandbox, tmp_path: Path) -> None:
    bulk(bank, tmp_path, items(1, "T"), context(run="before"))  # creates a session
    bank.fault("hang", path=BULK, seconds=60, handled=True, times=1)
    with (
        interrupted_when(lambda: bank.counters().faults["hang"], AirflowTaskTimeout),
        pytest.raises(x.IntergiroError, match="The next try of this task looks up") as caught,
    ):
        bulk(bank, tmp_path, items(5, "U"), settle=timedelta(hours=1))
    assert not x.is_final(caught.value)
    bulk(bank, tmp_path, items(5, "U"), context(run=str(tmp_path), try_number=2))
    assert paid(bank, "U") == Counter({f"U {n}": 1 for n in range(5)})


def test_nothing_found_is_unknown_until_resend_after_is_set(bank: Sandbox, tmp_path: Path) -> None:
    bank.fault("drop", path=BULK, times=1)
    for _ in range(2):
        with pytest.raises(x.OutcomeUnknown):
            bulk(bank, tmp_path, items(5, "D"))
    assert requests(bank) == 1
    bulk(bank, tmp_path, items(5, "D"), resend_after=SETTLE)
    assert paid(bank, "D") == Counter({f"D {n}": 1 for n in range(5)})


def test_before_it_is_sent_again_it_is_found_whatever_the_banks_clock_says(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_up, "CLOCK_SKEW", timedelta(hours=-1))  # as with a bank's clock that is an hour behind
    bank.fault("lose_response", path=BULK, times=1)
    bulk(bank, tmp_path, items(5, "clock"), resend_after=SETTLE)
    assert paid(bank, "clock") == Counter({f"clock {n}": 1 for n in range(5)})
    assert requests(bank) == 2, "one for each batch"


def test_own_ids_that_an_earlier_bulk_payment_had_are_not_taken_for_this_one(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [{**item, "correlation_id": f"bill-{n}"} for n, item in enumerate(items(3, "used"))]
    bulk(bank, tmp_path / "other", given, context(run="other"))
    monkeypatch.setattr(look_up, "CLOCK_SKEW", timedelta(hours=-1))  # as if the other bulk payment were an hour old
    bank.fault("drop", path=BULK, times=1)
    with pytest.raises(x.OutcomeUnknown, match=r"earlier bulk payment: bill-0, bill-1, bill-2"):
        bulk(bank, tmp_path, given, resend_after=SETTLE)
    assert requests(bank) == 2


def test_a_filter_that_is_ignored_makes_the_outcome_unknown(bank: Sandbox, tmp_path: Path) -> None:
    bank.set(correlation_ids_ignored=True)
    bank.fault("drop", path=BULK, times=1)
    with pytest.raises(x.OutcomeUnknown, match="ignores `correlation_ids`"):
        bulk(bank, tmp_path, items(5, "E"), resend_after=SETTLE)
    assert requests(bank) == 1


def test_some_found_is_unknown_with_both_lists(bank: Sandbox, tmp_path: Path) -> None:
    given = [{**item, "correlation_id": f"invoice-{n}"} for n, item in enumerate(items(4, "F"))]
    bulk(bank, tmp_path / "other", given[:2], context(run="other"))
    bank.fault("drop", path=BULK, times=1)
    with pytest.raises(x.OutcomeUnknown, match=r"2 are found.*Found: invoice-0, invoice-1\. Not found: invoice-2, inv"):
        bulk(bank, tmp_path, given, resend_after=SETTLE)


def test_a_killed_worker_leaves_a_batch_that_is_looked_up(bank: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        kill_in_request(bank, tmp_path, items(5, "G"))
    assert state(tmp_path)["batches"][0]["state"] == "sent"
    bulk(bank, tmp_path, items(5, "G"))
    assert paid(bank, "G") == Counter({f"G {n}": 1 for n in range(5)})


@pytest.mark.parametrize("made", [True, False])
def test_a_record_that_went_with_its_worker_is_made_up_for(bank: Sandbox, tmp_path: Path, made: bool) -> None:
    name = f"lost{made}"
    if made:
        with pytest.raises(KeyboardInterrupt):
            kill_in_request(bank, tmp_path, items(3, name))
    shutil.rmtree(tmp_path)
    bulk(bank, tmp_path, items(3, name), context(run=str(tmp_path), try_number=2))
    assert paid(bank, name) == Counter({f"{name} {n}": 1 for n in range(3)})
    assert requests(bank) == 1


def test_own_ids_that_were_used_shortly_before_do_not_confirm_a_batch(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "SMALL_CLOCK_SKEW", timedelta(0))  # as if the other payment were 2 minutes old
    given = [{**item, "correlation_id": f"person-{n}"} for n, item in enumerate(items(3, "twice"))]
    bulk(bank, tmp_path / "other", given, context(run="other"))
    bank.fault("drop", path=BULK, times=1)
    with pytest.raises(x.OutcomeUnknown, match="earlier bulk payment: person-0"):
        bulk(bank, tmp_path, given)


def kill_in_request(bank: Sandbox, path: Path, given: Any) -> None:
    """Interrupt the task after the bank has received its first batch."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def interrupted(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = send(self, request, *args, **kwargs)
        if request.url.endswith(BULK):
            raise KeyboardInterrupt
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPAdapter, "send", interrupted)
        bulk(bank, path, given)


def test_changed_items_under_one_key_are_a_mismatch(bank: Sandbox, tmp_path: Path) -> None:
    bulk(bank, tmp_path, items(5, "H"))
    with pytest.raises(x.PaymentMismatch, match="The items have changed"):
        bulk(bank, tmp_path, items(6, "H"))
    assert paid(bank, "H") == Counter({f"H {n}": 1 for n in range(5)})


def test_a_refused_batch_is_sent_again_after_a_clear(bank: Sandbox, tmp_path: Path) -> None:
    bank.set(max_waiting_batches=1)
    with pytest.raises(x.IntergiroValidationError):
        bulk(bank, tmp_path, items(10, "I"))
    bank.set(max_waiting_batches=100)
    bulk(bank, tmp_path, items(10, "I"))
    assert paid(bank, "I") == Counter({f"I {n}": 1 for n in range(10)})


def test_equal_items_are_paid_as_often_as_they_are_given(bank: Sandbox, tmp_path: Path) -> None:
    one = {"counterparty": PAYEE, "amount": 7, "reference": "J 0"}
    bulk(bank, tmp_path, [one] * 6)
    assert paid(bank, "J") == Counter({"J 0": 6})


def test_items_from_a_file_and_a_plan(bank: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, items(5, "K"))) + "\n")
    plan = bulk(bank, tmp_path / "r", f"file://{file}", dry_run=True)
    assert (plan["count"], plan["totals"], requests(bank)) == (5, {"EUR": 510}, 0)
    with pytest.raises(x.IntergiroValueError, match="approved_plan"):
        bulk(bank, tmp_path / "r", items(4, "K"), approved_plan=plan["sha256"])
    bulk(bank, tmp_path / "r", f"file://{file}", approved_plan=plan["sha256"])
    assert paid(bank, "K") == Counter({f"K {n}": 1 for n in range(5)})


@pytest.mark.exhaustive
def test_ten_thousand_items_that_become_visible_within_settle(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_SIZE", 1000)
    bank.set(correlation_delay=1.0)
    bank.fault("lose_response", path=BULK, skip=1, times=3, commit_after=1.0)
    bulk(bank, tmp_path, items(10_000, "L"), settle=timedelta(seconds=5))
    assert requests(bank) == 10
    assert paid(bank, "L") == Counter({f"L {n}": 1 for n in range(10_000)})
