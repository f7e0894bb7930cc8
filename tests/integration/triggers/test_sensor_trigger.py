# SPDX-License-Identifier: Apache-2.0
"""The trigger of a deferred IntergiroSensor, with a bank over real sockets and a real session."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

import pytest

from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.triggers import polling
from intergiro_provider.triggers.events import SUCCESS
from intergiro_provider.triggers.intergiro import SHORTEST_INTERVAL, IntergiroSensorTrigger
from tests.integration.pulls import Said, bank, said, shared_bank
from tests.integration.triggers.driving import Clock, clock, nothing

pytestmark = pytest.mark.integration

__all__ = ["bank", "clock", "said", "shared_bank"]  # fixtures

CHECKS = "tests.integration.triggers.checks"


def waiting_for(transaction: str, check: str = f"{CHECKS}.is_completed", interval: float = 60.0) -> Any:
    return IntergiroSensorTrigger(f"transactions/{transaction}", check, poke_interval=interval)


@pytest.fixture
def transaction(bank: Sandbox) -> str:
    [made] = bank.add_transactions(status="pending", reference="Rent of Åsa Öberg")
    return made


def asked(bank: Sandbox) -> int:
    return bank.counters().by_path["GET /v3/transactions/{id}"]


def test_it_polls_until_the_check_says_yes(bank: Sandbox, clock: Clock, transaction: str) -> None:
    events = clock.drive(
        waiting_for(transaction), nothing, nothing, lambda: bank.change_transactions([transaction], status="completed")
    )
    assert events == [SUCCESS]
    assert clock.slept == [60.0] * 3
    assert asked(bank) == 4


def test_the_query_goes_along(bank: Sandbox, clock: Clock) -> None:
    trigger = IntergiroSensorTrigger(
        "transactions", "intergiro_provider.sensors.checks.has_records", {"correlation_ids": "batch-7"}
    )
    assert clock.drive(trigger, lambda: bank.add_transactions(correlation_id="batch-7")) == [SUCCESS]
    assert bank.requests()[-1]["query"] == "correlation_ids=batch-7"


@pytest.mark.parametrize("interval", [0.0, 0.001])
def test_it_never_spins(bank: Sandbox, clock: Clock, transaction: str, interval: float) -> None:
    clock.drive(waiting_for(transaction, interval=interval), *[nothing] * 5)
    assert clock.slept == [SHORTEST_INTERVAL] * 6
    assert asked(bank) == 6


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("status", {"status": 503}), ("status", {"status": 408}), ("drop", {}), ("rate_limit", {"retry_after": None})],
)
def test_passing_errors_end_nothing(
    bank: Sandbox, clock: Clock, transaction: str, said: Said, kind: str, fault: dict[str, Any]
) -> None:
    bank.fault(kind, path="/v3/transactions/", **fault)

    def fix() -> None:
        bank.clear_faults()
        bank.change_transactions([transaction], status="completed")

    assert clock.drive(waiting_for(transaction, interval=1.0), *[nothing] * 11, fix) == [SUCCESS]
    assert asked(bank) == 13, "one request a poll: the trigger's pauses are the only ones"
    assert all(2 * former <= later * 1.2 for former, later in pairwise(clock.slept[:6]))
    assert clock.slept[-1] <= polling.LONGEST_DELAY * 1.2
    assert "error 12 in a row" in said()


def test_a_success_in_between_begins_the_count_anew(bank: Sandbox, clock: Clock, transaction: str) -> None:
    bank.fault("status", path="/v3/transactions/", times=3)
    clock.drive(
        waiting_for(transaction), *[nothing] * 4, lambda: bank.fault("status", path="/v3/transactions/", times=1)
    )
    assert clock.slept[3] == clock.slept[4] == 60.0
    assert clock.slept[5] <= polling.FIRST_DELAY * 1.2 < clock.slept[1]


def test_it_waits_as_the_bank_says(bank: Sandbox, clock: Clock, transaction: str) -> None:
    bank.fault("rate_limit", path="/v3/transactions/", retry_after=700.0, times=1)
    clock.drive(waiting_for(transaction), nothing)
    assert 700.0 <= clock.slept[0] <= 700.0 * 1.2
    assert clock.slept[1] == 60.0


def test_it_waits_as_the_budget_of_logins_says(
    bank: Sandbox, clock: Clock, transaction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the wait it sends no request to the bank."""
    monkeypatch.setenv("AIRFLOW_CONN_POOR", bank.connection(max_logins_per_hour=1))
    IntergiroHook("poor").run("accounts")
    bank.end_sessions()
    bank.reset_counters()
    trigger = IntergiroSensorTrigger(f"transactions/{transaction}", f"{CHECKS}.is_completed", intergiro_conn_id="poor")
    assert clock.drive(trigger, nothing) == []
    assert min(clock.slept) > 1800
    assert bank.counters().logins == 0


@pytest.mark.parametrize(
    ("endpoint", "kind", "fault", "error"),
    [
        ("transactions/nosuch", None, {}, "IntergiroNotFound"),
        ("transactions", "status", {"status": 403}, "IntergiroForbidden"),
        ("transactions", "status", {"status": 422}, "IntergiroValidationError"),
        ("transactions", "consent", {"scope": "read_history"}, "IntergiroConsentRequired"),
        ("https://elsewhere.example/v3/transactions", None, {}, "IntergiroValueError"),
    ],
)
def test_final_errors_end_it_at_once(
    bank: Sandbox, clock: Clock, endpoint: str, kind: str | None, fault: dict[str, Any], error: str
) -> None:
    if kind:
        bank.fault(kind, path="/v3/transactions", **fault)
    [event] = clock.drive(IntergiroSensorTrigger(endpoint, f"{CHECKS}.is_completed"))
    assert (event["status"], event["error"]) == ("error", error)
    assert clock.slept == []


def test_a_wrong_key_ends_it_with_one_login(bank: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {**json.loads(bank.connection()), "password": "wrong-key"}
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(connection))
    [event] = clock.drive(IntergiroSensorTrigger("accounts", f"{CHECKS}.is_completed", intergiro_conn_id="wrong"))
    assert event["error"] == "IntergiroAuthError"
    assert "wrong-key" not in json.dumps(event)
    assert bank.counters().login_refused == 1


@pytest.mark.parametrize(
    ("check", "error"),
    [
        ("quotes", "IntergiroError"),
        ("wants_context", "IntergiroError"),
        ("gives_up", "AirflowFailException"),
        ("nosuch", "IntergiroValueError"),
        ("not_a_function", "IntergiroValueError"),
    ],
)
def test_a_check_that_fails_ends_it(bank: Sandbox, clock: Clock, transaction: str, check: str, error: str) -> None:
    [event] = clock.drive(waiting_for(transaction, f"{CHECKS}.{check}"))
    assert event["error"] == error
    assert check in event["message"]
    assert "Öberg" not in json.dumps(event, ensure_ascii=False)


def test_no_such_connection_may_be_a_database_that_is_away(clock: Clock, said: Said) -> None:
    trigger = IntergiroSensorTrigger("accounts", f"{CHECKS}.is_completed", intergiro_conn_id="nosuch")
    assert clock.drive(trigger, nothing) == []
    assert len(clock.slept) == 2
    assert "nosuch" in said()


def test_a_hundred_sensors_share_one_session(bank: Sandbox) -> None:
    """When their token expires, there is one refresh and no login. Requests at a time are limited to the threads."""
    IntergiroHook().run("accounts")
    bank.expire_access_tokens()
    bank.reset_counters()

    async def all_of_them() -> list[Any]:
        async def one() -> Any:
            trigger = IntergiroSensorTrigger("accounts", "intergiro_provider.sensors.checks.has_records", {"limit": 1})
            return [event.payload async for event in trigger.run()]

        return await asyncio.wait_for(asyncio.gather(*(one() for _ in range(100))), 600)

    assert asyncio.run(all_of_them()) == [[SUCCESS]] * 100
    counters = bank.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early, counters.refresh_reused) == (0, 1, 0, 0)
    assert counters.peak_concurrent <= polling.THREADS


def test_the_event_loop_is_never_blocked(bank: Sandbox, transaction: str) -> None:
    """While the bank is slow, the event loop runs: other triggers continue."""
    bank.fault("latency", path="/v3/transactions/", seconds=2.0)
    turns = 0

    async def triggerer() -> None:
        nonlocal turns
        waiting = asyncio.create_task(anext(aiter(waiting_for(transaction, f"{CHECKS}.gives_up").run())))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.01)
            turns += 1

    asyncio.run(triggerer())
    assert turns > 5


def test_a_renewal_goes_on_when_its_trigger_is_cancelled(bank: Sandbox, transaction: str) -> None:
    """A refresh token works once. Without the response to the refresh, the session would be lost."""
    IntergiroHook().run("accounts")
    bank.expire_access_tokens()
    bank.reset_counters()
    bank.fault("latency", path="/v3/auth/refresh", seconds=1.0)

    async def triggerer() -> None:
        waiting = asyncio.create_task(anext(aiter(waiting_for(transaction).run())))
        until = time.monotonic() + 120
        while not any(fault["struck"] for fault in bank.faults()) and time.monotonic() < until:
            await asyncio.wait([waiting], timeout=0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(triggerer())
    until = time.monotonic() + 120
    while not bank.counters().refreshes and time.monotonic() < until:
        time.sleep(0.05)
    IntergiroHook().run("accounts")
    counters = bank.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_reused) == (0, 1, 0)
