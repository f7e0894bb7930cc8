# SPDX-License-Identifier: Apache-2.0
"""Renewals under a distributed lock: real servers, real driver, protocol and bank client."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import LockMismatch, StoreUnavailable
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import Renewed
from intergiro_provider.session.timings import Timings
from tests.integration.session.members import HURRIED, Plan, member, plan_for, renew
from tests.integration.session.services import PASSWORD, Postgres, Redis, wait_until

pytestmark = pytest.mark.integration

Service = Postgres | Redis
only_postgres = pytest.mark.parametrize("service", ["postgres"], indirect=True)


def calls(bank: Sandbox) -> tuple[int, int]:
    """Return the number of logins and refreshes. Check that there were no other session requests."""
    counters = bank.counters()
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)
    return counters.logins, counters.refreshes


def in_turn(*steps: tuple[str, Callable[[], Any]]) -> Callable[[str], None]:
    """Return a function that does the next action at each of these steps of a renewal."""
    waiting = list(steps)

    def at(step: str) -> None:
        if waiting and waiting[0][0] == step:
            waiting.pop(0)[1]()

    return at


def test_a_renewal_under_the_lock_needs_no_waiting_times(
    sandbox: Sandbox,
    tmp_path: Path,
    service: Service,
    record_property: Callable[[str, Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # members set it
    monkeypatch.setenv("AIRFLOW_CONN_LOCK", "")
    took: dict[str, float] = {}
    slept: dict[str, list[float]] = {"strict": [], "plain": []}
    sleep = driver._Run._sleep

    def noted(run: Any, effect: Any) -> None:
        slept[name].append(effect.seconds)
        sleep(run, effect)

    monkeypatch.setattr(driver._Run, "_sleep", noted)
    for name, lock in (("strict", service.connection_json()), ("plain", "")):
        (tmp_path / name).mkdir()
        plan = plan_for(sandbox, tmp_path / name, lock, timings=Timings(), ttl=120.0)
        session = plan.seed()
        began = time.monotonic()
        renewed = plan.shared().renew(session, "/v3/cards")
        took[name] = time.monotonic() - began
        assert (renewed.how, renewed.pair.gen, renewed.pair.lock) == ("refreshed", 2, session.lock)
        record_property(name, took[name])

    assert calls(sandbox) == (2, 2)
    assert slept == {"strict": [], "plain": [Timings().settle_lease]}
    print(f"a renewal takes {took['strict']:.3f} s with the {service.kind} lock, {took['plain']:.3f} s without")


def test_a_service_that_is_down_stops_the_renewal(
    sandbox: Sandbox, plan: Plan, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    session = plan.seed()
    with service.down():
        with pytest.raises(StoreUnavailable, match="`lock_conn_id` 'lock'") as caught:
            plan.shared().renew(session, "/v3/cards")
        assert PASSWORD not in str(caught.value) + caplog.text
        assert calls(sandbox) == (1, 0)
        assert plan.store().read("session") == session
        assert plan.store().read("lease") == Lease(0, "seed")

    assert plan.shared().renew(session, "/v3/cards").how == "refreshed"
    assert calls(sandbox) == (1, 1)


def test_a_service_that_is_down_for_a_moment_does_not(
    sandbox: Sandbox, plan: Plan, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = plan.seed()
    renewed: list[Renewed] = []
    failed, up = threading.Event(), threading.Event()
    lock = plan.open()
    attempt = lock.try_acquire

    def try_acquire() -> bool:
        if failed.is_set():
            assert up.wait(120)
        try:
            return attempt()
        except StoreUnavailable:
            failed.set()
            raise

    monkeypatch.setattr(lock, "try_acquire", try_acquire)
    monkeypatch.setattr(Plan, "open", lambda plan: lock)
    thread = threading.Thread(target=lambda: renewed.append(plan.shared().renew(session, "/v3/cards")))
    with service.down():
        thread.start()
        assert failed.wait(120)
    up.set()
    thread.join(120)

    assert [r.how for r in renewed] == ["refreshed"]


@pytest.mark.parametrize(
    ("step", "refreshes"), [("wrote lease", 0), ("probed", 0), ("refreshing", 1), ("wrote session", 1)]
)
def test_a_lock_that_is_lost_midway(sandbox: Sandbox, plan: Plan, service: Service, step: str, refreshes: int) -> None:
    session = plan.seed()
    shared = plan.shared(in_turn((step, lambda: service.take_away(plan.name))))

    if refreshes:
        # The request had been sent already, and its result is kept.
        assert shared.renew(session, "/v3/cards").how == "refreshed"
        stored = plan.store().read("session")
        assert isinstance(stored, TokenPair)
        assert stored.gen == 2
    else:
        with pytest.raises(StoreUnavailable, match="`lock_conn_id` 'lock'.*was lost"):
            shared.renew(session, "/v3/cards")
        assert plan.store().read("session") == session
    assert calls(sandbox) == (1, refreshes)

    plan.shared().renew(session, "/v3/cards")
    assert calls(sandbox) == (1, 1)


def test_a_service_that_goes_down_midway(sandbox: Sandbox, plan: Plan, service: Service) -> None:
    session = plan.seed()
    down: Any = service.down()
    try:
        with pytest.raises(StoreUnavailable, match="`lock_conn_id` 'lock'"):
            plan.shared(in_turn(("wrote lease", down.__enter__))).renew(session, "/v3/cards")
    finally:
        down.__exit__(None, None, None)
    assert calls(sandbox) == (1, 0)

    assert plan.shared().renew(session, "/v3/cards").how == "refreshed"


@pytest.mark.parametrize("step", ["wrote lease", "probed"])
def test_a_killed_renewal_is_taken_over(sandbox: Sandbox, plan: Plan, service: Service, step: str) -> None:
    # PostgreSQL detects the closed connection, long before the TTL. In Redis, the key must expire.
    killed_plan = replace(plan, host="another", ttl=300.0 if service.kind == "postgres" else 3.0)
    session = plan.seed()
    with member(renew, killed_plan, step, signal.SIGKILL) as killed:
        assert killed.hear() is None
        renewed = plan.shared().renew(session, "/v3/cards")

    assert renewed.how == "refreshed"
    assert calls(sandbox) == (1, 1)


def test_a_renewal_killed_after_the_rotation_costs_one_login(sandbox: Sandbox, plan: Plan) -> None:
    session = plan.seed()
    sandbox.fault("hang", path="/v3/auth/refresh", times=1, seconds=300, handled=True)
    with member(renew, replace(plan, host="another", ttl=3.0), "refreshing", 0) as killed:
        # The bank has rotated the token, and the new one is lost.
        wait_until(lambda: sandbox.counters().refreshes == 1)
        killed.signal(signal.SIGKILL)

    renewed = plan.shared().renew(session, "/v3/cards")

    assert renewed.how == "logged_in"
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early) == (2, 1, 0)
    assert counters.refresh_reused + counters.refresh_refused == 1


@pytest.mark.parametrize("step", ["wrote lease", "probed"])
def test_a_holder_stopped_for_longer_than_the_ttl_asks_the_bank_nothing_more(
    sandbox: Sandbox, plan: Plan, step: str
) -> None:
    session = plan.seed()
    theirs = plan.open()
    with member(renew, replace(plan, host="another", ttl=3.0), step, signal.SIGSTOP) as stopped:
        stopped.wait_until_stopped()
        wait_until(theirs.try_acquire)
        asked = sandbox.counters().requests
        stopped.signal(signal.SIGCONT)
        said = stopped.hear()

    assert isinstance(said, StoreUnavailable)
    # Lost; or unknown, if it was stopped during the check of the lock.
    assert "`lock_conn_id`" in str(said)
    theirs.check()
    theirs.release()
    assert sandbox.counters().requests == asked
    assert plan.shared().renew(session, "/v3/cards").how == "refreshed"
    assert calls(sandbox) == (1, 1)


@pytest.mark.parametrize("step", ["wrote lease", "probed", "wrote session"])
def test_a_holder_stopped_for_longer_than_the_ttl_does_no_harm_to_its_successor(
    sandbox: Sandbox, plan: Plan, step: str
) -> None:
    session = plan.seed()
    with member(renew, replace(plan, host="another", ttl=3.0), step, signal.SIGSTOP) as stopped:
        stopped.wait_until_stopped()
        renewed = plan.shared().renew(session, "/v3/cards")
        assert calls(sandbox) == (1, 1)
        asked = sandbox.counters().requests
        stopped.signal(signal.SIGCONT)
        said = stopped.hear()

    assert isinstance(said, StoreUnavailable) or (isinstance(said, Renewed) and said.pair == renewed.pair)
    assert sandbox.counters().requests == asked
    assert plan.store().read("session") == renewed.pair


@pytest.mark.slow
def test_a_first_login_stopped_for_longer_than_the_ttl(sandbox: Sandbox, plan: Plan) -> None:
    """Before the first session, the lease with its waits applies in addition to the lock. There is one login."""
    plan = replace(plan, timings=HURRIED)
    with member(renew, replace(plan, host="another", ttl=3.0), "wrote logins", signal.SIGSTOP) as stopped:
        stopped.wait_until_stopped()
        current = plan.shared().current()
        assert calls(sandbox) == (1, 0)

        stopped.signal(signal.SIGCONT)
        said = stopped.hear()

    assert isinstance(said, (StoreUnavailable, Renewed))
    assert not isinstance(said, Renewed) or said.pair == current
    assert calls(sandbox) == (1, 0)


def test_a_waiter_sees_a_new_session_without_getting_the_lock(sandbox: Sandbox, plan: Plan) -> None:
    session = plan.seed()
    lock = plan.open()
    assert lock.try_acquire()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(plan.shared().renew(session, "/v3/cards")))
    thread.start()
    time.sleep(0.4)
    assert not found
    fresh = replace(session, access_token="fresh", gen=2, nonce="theirs")
    plan.store().write("session", fresh)
    thread.join(60)

    assert [renewed.pair for renewed in found] == [fresh]
    lock.check()
    lock.release()
    assert calls(sandbox) == (1, 0)


@only_postgres
def test_a_waiter_ends_at_the_deadline(sandbox: Sandbox, plan: Plan) -> None:
    brief = replace(HURRIED, wait=4.5)
    plan = replace(plan, timings=brief)
    session = plan.seed()
    lock = plan.open()
    assert lock.try_acquire()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="could not be renewed within"):
        plan.shared().renew(session, "/v3/cards")
    assert brief.wait <= time.monotonic() - began < brief.wait + 60
    lock.release()
    assert calls(sandbox) == (1, 0)


# Some members have the lock, some have none or another.


def test_who_has_no_lock_or_another_one_renews_nothing(sandbox: Sandbox, plan: Plan, redis_server: Redis) -> None:
    session = plan.seed()
    other = redis_server.connection() | {"extra": {"db": 1}}
    for lock in ("", json.dumps(other)):
        driver._caches.clear()
        with pytest.raises(LockMismatch, match="lock_conn_id"):
            replace(plan, lock=lock).shared().renew(session, "/v3/cards")
    assert calls(sandbox) == (1, 0)

    assert plan.shared().renew(session, "/v3/cards").how == "refreshed"
    driver._caches.clear()
    # All members may use a session that another member has renewed.
    assert replace(plan, lock="").shared().renew(session, "/v3/cards").how == "found"
    assert calls(sandbox) == (1, 1)


@only_postgres
def test_a_lock_that_is_new_takes_over_from_none(sandbox: Sandbox, plan: Plan) -> None:
    session = replace(plan, lock="").seed()

    renewed = plan.shared().renew(session, "/v3/cards")

    assert renewed.pair.lock == plan.open().fingerprint
    assert calls(sandbox) == (1, 1)


@only_postgres
def test_a_mixed_start_makes_one_login(sandbox: Sandbox, plan: Plan) -> None:
    plan = replace(plan, timings=Timings())  # the lease, too, must exclude
    with (
        member(renew, replace(plan, host="a"), "", 0) as locked,
        member(renew, replace(plan, host="b", lock=""), "", 0) as plain,
    ):
        said = [locked.hear(), plain.hear()]

    sessions = {s.pair.identity for s in said if isinstance(s, Renewed)}
    assert len(sessions) == 1
    assert all(isinstance(s, (Renewed, LockMismatch)) for s in said)
    assert calls(sandbox) == (1, 0)
