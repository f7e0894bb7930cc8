# SPDX-License-Identifier: Apache-2.0
"""One payment with crashes, delays and wrong clocks at the worst moments, on a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.operators.payment_base import possibly_sent_since
from intergiro_provider.payments import single
from intergiro_provider.payments.plan import read_payment
from intergiro_provider.payments.record import Record
from intergiro_provider.payments.single import Policy, SinglePayment
from intergiro_provider.pull.directory import Directory
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.driver import SharedSession
from tests.integration.payments.support import PAYEE, account, change_api_key, context, made, pay
from tests.timings import ALONE

pytestmark = pytest.mark.integration

PAY = "/v3/transactions/pay"
KEY = "5d9a1d0e-2f53-5d43-9a3f-0a4c2f5e7b11"
DAY = timedelta(days=1)
NEVER = timedelta(0)


@pytest.fixture(scope="module")
def shared(airflow_db: Path) -> Iterator[Sandbox]:
    with Sandbox(transactions=10, access_token_life=1e7, session_life=1e7, login_limit=500) as bank:
        yield bank


@pytest.fixture
def bank(shared: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", shared.connection(max_logins_per_hour=400))
    monkeypatch.setattr(single, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr("intergiro_provider.hooks.intergiro._timings", lambda: ALONE)
    yield shared
    shared.clear_faults()
    shared.set(idempotency="keep", idempotency_life=0.0, seed=shared.settings()["seed"])


class Time:
    """A simulated clock, which the sandbox shares. `sleep` returns at once."""

    def __init__(self, bank: Sandbox) -> None:
        self._bank, self._ahead = bank, 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    def sleep(self, seconds: float) -> None:
        self._bank.advance(seconds)
        self._ahead += seconds


@pytest.fixture(scope="module")
def time(shared: Sandbox) -> Time:
    return Time(shared)


def payment(bank: Sandbox, time: Time, path: Path | None, **policy: Any) -> SinglePayment:
    """Return an attempt of the payment, as in a new process."""
    directory = Directory(fsspec.filesystem("file"), str(path)) if path else None
    return SinglePayment(
        IntergiroHook(method="POST").client,
        read_payment("pay", account(bank), 125_00, "Rent", "EUR", PAYEE),
        KEY, Record(directory, "r", time.now), Policy(**policy), now=time.now, sleep=time.sleep,
    )  # fmt: skip


def leaving_late(monkeypatch: pytest.MonkeyPatch, time: Time, seconds: float) -> None:
    """Delay the first request to pay by these seconds, after its record and its authentication."""
    from requests.adapters import HTTPAdapter

    send, waits = HTTPAdapter.send, [seconds]

    def late(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.url.endswith(PAY) and waits:
            time.sleep(waits.pop())
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(HTTPAdapter, "send", late)


@pytest.mark.parametrize("kept", [True, False])
def test_a_request_that_leaves_late_and_is_carried_out_late_is_found(
    bank: Sandbox, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    bank.set(idempotency="ignore")
    bank.fault("lose_response", path=PAY, times=1, commit_after=500)
    leaving_late(monkeypatch, time, 400)
    result = payment(bank, time, tmp_path if kept else None, key_trusted_for=NEVER).make()
    time.sleep(1000)
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]


def slow(monkeypatch: pytest.MonkeyPatch, time: Time, name: str) -> None:
    """Make a method of the session take a minute."""
    method = getattr(SharedSession, name)

    def delayed(*args: Any) -> Any:
        time.sleep(60)
        return method(*args)

    monkeypatch.setattr(SharedSession, name, delayed)


def test_a_request_that_is_late_after_a_renewal_is_not_sent(
    bank: Sandbox, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, time, "renew")
    bank.fault("status", path=PAY, status=401, times=1)
    one = payment(bank, time, tmp_path)
    with pytest.raises(x.IntergiroError, match="Nothing was sent for payment .* can be retried"):
        one.make()
    assert not made(bank)
    assert [each["outcome"] for each in one.record.content["attempts"]] == ["not sent"]
    payment(bank, time, tmp_path).make()
    assert len(made(bank)) == 1


def test_a_slow_login_does_not_delay_the_request_after_its_record(
    bank: Sandbox, time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, time, "_renew")
    driver._caches.clear()  # as in a new process, which has no token pair
    payment(bank, time, tmp_path).make()
    assert len(made(bank)) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_409_while_the_former_try_is_under_way_is_not_another_payment(
    bank: Sandbox, time: Time, tmp_path: Path, kept: bool
) -> None:
    began, path = time.now(), tmp_path if kept else None
    bank.fault("lose_response", path=PAY, times=1, commit_after=300)
    bank.fault("status", path="/v3/transactions$", status=503, times=1)
    bank.fault("status", path=PAY, status=401)
    with pytest.raises(x.IntergiroAuthError):
        payment(bank, time, path, last_try=False).make()
    bank.clear_faults()
    bank.fault("status", path=PAY, status=409)
    payment(bank, time, path, possibly_sent_since=began).make()
    assert len(made(bank)) == 1


@pytest.mark.parametrize("age", [85_000, 86_350, 87_000])
def test_a_repetition_that_is_carried_out_when_the_key_is_forgotten_is_not_sent_on_trust(
    bank: Sandbox, time: Time, tmp_path: Path, age: float
) -> None:
    bank.set(idempotency_life=86_400.0)
    bank.fault("lose_response", path=PAY)
    bank.fault("status", path="/v3/transactions$", status=503)
    with pytest.raises(x.BankUnavailable):
        payment(bank, time, tmp_path, last_try=False).make()
    bank.clear_faults()
    time.sleep(age)
    bank.fault("lose_response", path=PAY, times=1, commit_after=500)
    bank.fault("status", path="/v3/transactions$", status=503, times=1)
    payment(bank, time, tmp_path).make()
    time.sleep(1000)
    assert len(made(bank)) == 1


def test_a_record_that_begins_with_a_retry_counts_from_the_first_try(bank: Sandbox, time: Time, tmp_path: Path) -> None:
    began = time.now()
    bank.set(idempotency_life=86_400.0)
    payment(bank, time, None).make()
    time.sleep(2 * 86_400)
    payment(bank, time, tmp_path, possibly_sent_since=began).make()
    assert len(made(bank)) == 1


def test_a_rejected_payment_stays_rejected_when_the_key_is_forgotten(bank: Sandbox, time: Time, tmp_path: Path) -> None:
    bank.set(idempotency="ignore")
    answer = {"id": "t-1", "amount": 12500, "status": "rejected"}
    bank.fault("response", path=PAY, status=200, body=answer, times=1)
    for _ in range(2):
        with pytest.raises(x.PaymentRejected):
            payment(bank, time, tmp_path).make()
    assert not made(bank)


class Store(dict[str, str]):
    """The task state store of Airflow 3.3 and later."""

    def set(self, name: str, value: str) -> None:
        self[name] = value


class TestWithoutRecord:
    """Without a record, only Airflow knows of earlier attempts."""

    def test_a_key_that_is_never_trusted_needs_a_record(self, bank: Sandbox) -> None:
        with pytest.raises(x.IntergiroValueError, match="`record_path` is None, but `key_trusted_for`"):
            pay(bank, key_trusted_for=NEVER)
        assert not made(bank)

    @pytest.mark.parametrize("list_fails", [False, True])
    def test_a_new_api_key_between_two_tries_is_an_unknown_outcome(
        self, bank: Sandbox, monkeypatch: pytest.MonkeyPatch, list_fails: bool
    ) -> None:
        pay(bank)
        change_api_key(bank, monkeypatch)
        if list_fails:
            bank.fault("status", path="/v3/transactions$", status=503)
        with pytest.raises(x.IntergiroServerError if list_fails else x.OutcomeUnknown):
            pay(bank, context(try_number=2))
        bank.clear_faults()
        assert len(made(bank)) == 1

    def test_from_airflow_3_3_on_a_retry_sends_the_key_of_the_first_try(
        self, bank: Sandbox, time: Time, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The API key has changed, and the bank carries out the first request after the look-up."""
        store = {"task_state_store": Store()}
        bank.fault("lose_response", path=PAY, commit_after=500)
        bank.fault("status", path="/v3/transactions$", status=503)
        with pytest.raises(x.BankUnavailable):
            pay(bank, {**context(max_tries=1), **store})
        bank.clear_faults()
        change_api_key(bank, monkeypatch)
        assert not made(bank)
        pay(bank, {**context(try_number=2, max_tries=1), **store})
        time.sleep(1000)
        assert len(made(bank)) == 1
        assert pay(bank, {**context(try_number=3), **store})["payment_id"] == made(bank)[0]["id"]

    def test_a_state_store_that_fails_is_no_failure(self, bank: Sandbox) -> None:
        class Broken:
            def get(self, name: str) -> Any:
                raise RuntimeError("no API server")

        pay(bank, {**context(), "task_state_store": Broken()})
        assert len(made(bank)) == 1

    def test_two_tasks_with_one_payment_key_in_a_run_older_than_the_key(self, bank: Sandbox) -> None:
        bank.set(idempotency="ignore")  # as if the bank had forgotten the key
        started = datetime.now(UTC) - 2 * DAY
        short = {"payment_key": "invoice-17", "settle": timedelta(seconds=0.2)}
        for task in ("one", "two"):
            pay(bank, context(task=task, started=started), **short)
        assert len(made(bank)) == 1

    def test_a_first_try_is_the_first_attempt(self) -> None:
        assert possibly_sent_since(context()) is None
        assert possibly_sent_since(context(), shared=True) is not None


@pytest.mark.parametrize("hours", [-4, 4])
def test_the_banks_clock_may_be_wrong(bank: Sandbox, tmp_path: Path, hours: int) -> None:
    class Wrong(Time):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=hours)

    bank.reset()
    IntergiroHook(method="GET").run("accounts")  # creates a session
    bank.set(idempotency="ignore")
    bank.fault("lose_response", path=PAY, times=1)
    payment(bank, Wrong(bank), tmp_path, key_trusted_for=NEVER).make()
    assert len(made(bank)) == 1
