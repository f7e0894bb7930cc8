# SPDX-License-Identifier: Apache-2.0
"""A renewing process that dies, stands still, or loses its store, its lock or its bank, at each point where it can."""

from __future__ import annotations

import pytest

from intergiro_provider.exceptions import BankUnavailable, StoreUnavailable
from intergiro_provider.session.effects import ConfirmAbsent, LogIn, Now, Probe, Refresh
from tests.unit.session import line, variables
from tests.unit.session.actors import Variant
from tests.unit.session.bank import RULES, Bank, Rule
from tests.unit.session.faults import Fault, Kind, Matcher, Script, is_effect, read, write
from tests.unit.session.scene import LIFE, TIMINGS, calls, end_sessions, lease_of, put, scene, stored, with_session
from tests.unit.session.world import World

SOON = 60.0
SUCCESSION = TIMINGS.takeover + TIMINGS.settle_session + 90.0
"""Seconds within which another one has taken over, settled and renewed."""


def log_in_elsewhere(world: World) -> None:
    world.bank.log_in("key-1", world.t, person=True)


def set_mode(world: World, mode: variables.Mode) -> None:
    world.variables.mode = mode


# Kill.


BEFORE_THE_BANK: dict[str, Matcher] = {
    "read session": read("session"),
    "read lease": read("lease"),
    "write lease": write("lease"),
    "clock": is_effect(Now),
    "probe": is_effect(Probe),
    "refresh": is_effect(Refresh),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (where, kind)
        for where in BEFORE_THE_BANK
        for kind in ("kill", "kill_after")
        if (where, kind[4:]) != ("refresh", "_after")
    ],
)
def test_killed_before_the_bank_was_asked(variant: Variant, rule: Rule, where: str, kind: Kind) -> None:
    nth = 2 if where == "clock" else 1
    faults = Script().on("a", BEFORE_THE_BANK[where], Fault(kind), nth=nth)
    world = scene(variant, "ab", faults=faults, bank=Bank(rule, LIFE), gap=4.0)
    with_session(world)
    world.run(SUCCESSION)
    assert faults.spent
    assert (world.bank.refreshes, world.bank.reused, len(world.bank.logins)) == (1, 0, 0)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("where", [is_effect(Refresh), write("session")], ids=["refresh", "write session"])
@pytest.mark.parametrize("rule", RULES)
def test_killed_between_the_rotation_and_the_store(variant: Variant, rule: Rule, where: Matcher) -> None:
    kind: Kind = "kill_after" if where(Refresh("")) else "kill"
    faults = Script().on("a", where, Fault(kind))
    world = scene(variant, "ab", faults=faults, bank=Bank(rule, LIFE), gap=4.0)
    with_session(world)
    world.run(SUCCESSION)
    assert faults.spent
    # The rotation is lost: one refused refresh, and one login; none where the old token still works.
    assert len(world.bank.logins) == (0 if rule == "lenient" else 1)
    assert world.bank.reused == (0 if rule == "lenient" else 1)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("rule", RULES)
def test_killed_after_the_store(variant: Variant, rule: Rule) -> None:
    faults = Script().on("a", write("session"), Fault("kill_after"))
    world = scene(variant, "ab", faults=faults, bank=Bank(rule, LIFE), gap=4.0)
    with_session(world)
    world.run(SOON)
    assert faults.spent
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize(
    ("where", "kind", "logins"),
    [
        (read("logins"), "kill", 1),
        (write("logins"), "kill", 1),
        (write("logins"), "kill_after", 1),
        (is_effect(LogIn), "kill", 1),
        (is_effect(LogIn), "kill_after", 2),
        (write("session"), "kill", 2),
        (write("session"), "kill_after", 1),
    ],
)
def test_killed_around_the_first_login(variant: Variant, where: Matcher, kind: Kind, logins: int) -> None:
    faults = Script().on("a", where, Fault(kind))
    world = scene(variant, "ab", faults=faults, gap=4.0)
    world.run(SUCCESSION)
    assert faults.spent
    assert len(world.bank.logins) == logins
    assert all(worker.successes for worker in world.workers)


def test_killed_between_reservation_and_login_costs_one_slot(variant: Variant) -> None:
    faults = Script().on("a", is_effect(LogIn), Fault("kill"), times=3)
    world = scene(variant, "a", faults=faults, patience=60.0)
    world.run(3500.0)
    assert faults.spent
    # Three times reserved and never used: nobody can know that, so the hour is over for logins.
    assert world.bank.logins == []
    world.run(3 * 3600.0)
    assert len(world.bank.logins) == 1


# Stand still.


@pytest.mark.parametrize("kind", ["pause", "pause_after"])
@pytest.mark.parametrize("rule", ["strict", "single"])
@pytest.mark.parametrize("seconds", [60.0, 160.0, 400.0])
def test_stopped_with_the_rotated_token_in_hand(variant: Variant, rule: Rule, kind: Kind, seconds: float) -> None:
    where = write("session") if kind == "pause" else is_effect(Refresh)
    faults = Script().on("a", where, Fault(kind, seconds))
    world = scene(variant, "ab", faults=faults, bank=Bank(rule, LIFE), gap=4.0)
    with_session(world)
    world.run(max(SUCCESSION, seconds + SOON))
    assert faults.spent
    # One login by the successor, if there was time for one. What the sleeper stores then, if it was stopped right
    # before its write, costs one more.
    assert len(world.bank.logins) <= (0 if seconds < TIMINGS.takeover else 2 if kind == "pause" else 1)
    assert all(worker.successes for worker in world.workers)
    if kind == "pause_after" and seconds > SUCCESSION:
        assert world["a"].renewed[-1][1].how == "found"


@pytest.mark.parametrize("seconds", [70.0, 160.0, 400.0])
@pytest.mark.parametrize("where", BEFORE_THE_BANK)
def test_stopped_before_the_bank_was_asked(variant: Variant, where: str, seconds: float) -> None:
    nth = 2 if where == "clock" else 1
    faults = Script().on("a", BEFORE_THE_BANK[where], Fault("pause", seconds), nth=nth)
    world = scene(variant, "ab", faults=faults, gap=4.0)
    with_session(world)
    world.run(max(SUCCESSION, seconds + SOON))
    assert faults.spent
    assert world.bank.refreshes == 1
    # Stopped right before the refresh for longer than its time, it still refreshes, but stores nothing any more.
    too_late_to_store = where == "refresh" and seconds > TIMINGS.takeover
    assert len(world.bank.logins) <= too_late_to_store
    assert all(worker.successes for worker in world.workers)


def test_stopped_before_its_probe_for_longer_than_the_critical_section(variant: Variant) -> None:
    faults = Script().on("a", read("session"), Fault("pause", TIMINGS.critical + 5.0), nth=3)
    world = scene(variant, "a", faults=faults, api=0.02)
    with_session(world)
    world.run(TIMINGS.critical + SOON)
    assert faults.spent
    leases = [t for t, _, what in world.trace or [] if what.startswith("Write lease")]
    (probe,) = [t for t, _, what in world.trace or [] if what.startswith("Probe")]
    assert probe - leases[-1] < TIMINGS.critical
    assert world.bank.refreshes == 1


def test_stopped_for_so_long_that_it_must_not_store_any_more(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Refresh), Fault("pause_after", TIMINGS.persist_until + 5.0))
    world = scene(variant, "a", faults=faults)
    with_session(world)
    world.run(TIMINGS.persist_until + 20.0)
    assert faults.spent
    assert not world["a"].renewed[-1][1].stored
    assert stored(world).gen == 5


def test_sleeper_that_stores_while_its_successor_probes(variant: Variant) -> None:
    faults = (
        Script()
        .on("a", write("session"), Fault("pause", TIMINGS.takeover + 12.0))
        .on("b", is_effect(Probe), Fault("pause_after", 15.0))
    )
    world = scene(variant, "ab", faults=faults, gap=4.0, api=0.02, bank_call=0.1, slow_calls=0.0)
    with_session(world)
    world.run(SUCCESSION)
    assert faults.spent
    assert (world.bank.refreshes, world.bank.reused, len(world.bank.logins)) == (1, 0, 0)
    assert world["b"].renewed[-1][1].how == "found"


def test_reservation_that_has_become_old_is_made_again(variant: Variant) -> None:
    faults = Script().on("a", read("logins"), Fault("pause", TIMINGS.reserve + 2.0), nth=2)
    world = scene(variant, "a", faults=faults).run(SOON)
    assert faults.spent
    reservations = [t for t, who, what in world.trace or [] if who == "a" and what.startswith("Write logins")]
    (login,) = world.bank.logins
    assert login - reservations[-1] < TIMINGS.reserve
    assert len(world.variables.documents["logins"].logins) == 1


def test_stopped_before_its_login_for_less_than_its_time(variant: Variant) -> None:
    faults = Script().on("a", is_effect(LogIn), Fault("pause", 60.0))
    world = scene(variant, "ab", faults=faults, gap=4.0).run(SUCCESSION)
    assert faults.spent
    assert len(world.bank.logins) == 1


# The store fails.


@pytest.mark.parametrize("mode", ["readonly", "down", "blind"])
@pytest.mark.parametrize("start", ["expired", "cold"])
def test_nothing_is_burnt_where_the_store_cannot_be_written(variant: Variant, mode: variables.Mode, start: str) -> None:
    world = scene(variant, "abc")
    if start == "expired":
        with_session(world)
    set_mode(world, mode)
    world.at(600.0, set_mode, world, "up")
    world.run(600.0)
    assert calls(world) == []
    assert all(isinstance(worker.error, StoreUnavailable) for worker in world.workers)
    world.run(600.0 + SUCCESSION)
    assert all(worker.successes for worker in world.workers)
    assert (world.bank.refreshes, len(world.bank.logins)) == ((1, 0) if start == "expired" else (0, 1))


def test_lease_write_that_fails_now_and_then(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", write("lease"), Fault("fail", 0.5), times=2))
    with_session(world)
    world.run(30.0)
    assert calls(world) == ["a:Probe", "a:Refresh"]


def test_lease_write_that_fails_three_times(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", write("lease"), Fault("fail", 0.5), times=3))
    with_session(world)
    world.run(10.0)
    assert calls(world) == []
    assert isinstance(world["a"].error, StoreUnavailable)


def test_lease_write_that_only_seems_to_have_failed(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", write("lease"), Fault("fail_applied", 0.5), times=4))
    with_session(world)
    world.run(60.0)
    assert calls(world) == ["a:Probe", "a:Refresh"]
    assert not world["a"].errors


def test_store_that_is_down_after_the_rotation_is_tried_until_it_works(variant: Variant) -> None:
    world = scene(variant, "ab", faults=Script().on("a", write("session"), Fault("fail", 1.0), times=20), gap=4.0)
    with_session(world)
    world.run(120.0)
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)
    assert world["a"].renewed[-1][1].stored
    assert world["b"].successes


def test_store_that_stays_down_after_the_rotation(variant: Variant) -> None:
    faults = Script().on("a", write("session"), Fault("fail", 1.0), times=10_000)
    world = scene(variant, "ab", faults=faults, gap=4.0)
    with_session(world)
    world.run(TIMINGS.persist_until + TIMINGS.store + 10.0)
    assert not world["a"].renewed[-1][1].stored
    # It goes on with what it has in memory; the others log in once.
    assert world["a"].successes
    world.run(400.0)
    assert len(world.bank.logins) == 1
    assert world["b"].successes


def test_tokens_in_memory_are_renewed_and_stored_later(variant: Variant) -> None:
    faults = Script().on("a", write("session"), Fault("fail", 10.0), times=12)
    world = scene(variant, "a", faults=faults)
    with_session(world)
    world.run(2 * LIFE)
    assert [renewed.stored for _, renewed in world["a"].renewed[1:]] == [False, True]
    assert (world.bank.refreshes, len(world.bank.logins), world.bank.reused) == (2, 0, 0)
    assert stored(world).gen == 7


def test_acknowledgement_of_the_store_is_lost(variant: Variant) -> None:
    world = scene(variant, "ab", faults=Script().on("a", write("session"), Fault("fail_applied", 2.0)), gap=4.0)
    with_session(world)
    world.run(SOON)
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)
    assert world["a"].renewed[-1][1].stored


# Reads that see nothing.


@pytest.mark.parametrize(("slot", "nth"), [("session", 1), ("session", 2), ("session", 3), ("lease", 1), ("lease", 2)])
def test_false_absence_is_no_reason_to_log_in(variant: Variant, slot: str, nth: int) -> None:
    faults = Script().on("a", read(slot), Fault("missing"), nth=nth)
    world = scene(variant, "ab", faults=faults, gap=4.0)
    with_session(world)
    world.run(SOON)
    assert faults.spent
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("nth", range(1, 8))
def test_false_absence_while_the_end_of_a_session_settles(variant: Variant, nth: int) -> None:
    faults = Script().on("a", read("session"), Fault("missing"), nth=nth)
    world = scene(variant, "ab", faults=faults, gap=4.0)
    with_session(world)
    end_sessions(world, 0.0)
    world.run(SUCCESSION)
    assert len(world.bank.logins) == 1
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("nth", [1, 2])
def test_absence_that_nobody_can_confirm(variant: Variant, nth: int) -> None:
    faults = Script().on("a", is_effect(ConfirmAbsent, "session"), Fault("fail", 1.0), nth=nth)
    world = scene(variant, "a", faults=faults).run(8.0)
    assert faults.spent
    assert isinstance(world["a"].error, StoreUnavailable)
    assert calls(world) == []
    # Nobody has to wait for the end of a lease.
    assert world.variables.documents["lease"] is None or lease_of(world).verdict == "free"


def test_login_history_that_seems_to_be_absent(variant: Variant) -> None:
    faults = Script().on("a", read("logins"), Fault("missing"), times=2, nth=3)
    world = scene(variant, "a", faults=faults, patience=60.0)
    for when in (50.0, 100.0, 150.0):
        end_sessions(world, when)
    world.run(1000.0)
    assert faults.spent
    assert len(world.bank.logins) == 3


def test_deleted_session_is_one_login(variant: Variant) -> None:
    world = scene(variant, "abc")
    with_session(world, age=LIFE - 50.0)
    world.at(30.0, put, world, None)
    world.run(200.0)
    assert len(world.bank.logins) == 1
    assert all(worker.successes[-1] > 150.0 for worker in world.workers)


def test_deleted_during_the_renewal(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Refresh), Fault("pause_after", 5.0))
    world = scene(variant, "ab", faults=faults, gap=4.0)
    with_session(world)
    world.at(6.0, put, world, None)
    world.run(SUCCESSION)
    assert world.bank.logins == []
    assert stored(world).gen == 6


# The distributed lock, the bank.


@pytest.mark.parametrize("when", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("start", ["expired", "ended", "cold"])
def test_strict_lock_is_lost_on_the_way(variant: Variant, when: float, start: str) -> None:
    faults = (
        Script()
        .on(None, is_effect(Refresh), Fault("pause_after", 3.0))
        .on(None, is_effect(LogIn), Fault("pause_after", 3.0))
    )
    world = scene(variant, "abc", locks=dict.fromkeys("abc", "L"), faults=faults, gap=0.1)
    if start != "cold":
        with_session(world, lock="L")
    if start == "ended":
        end_sessions(world, 0.0)
    world.at(when, world.lose_lock, "L")
    world.run(SUCCESSION)
    assert len(world.bank.logins) == (0 if start == "expired" else 1)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("mode", ["down", "ill", "mute"])
def test_bank_that_is_down_costs_no_login(variant: Variant, mode: line.Mode) -> None:
    world = scene(variant, "abc")
    with_session(world)
    world.line.mode = mode
    world.run(300.0)
    assert world.bank.logins == []
    assert all(isinstance(worker.error, BankUnavailable) for worker in world.workers)
    # One of them asked in each half minute, not all of them all the time.
    assert len(calls(world)) <= 2 * (300.0 / TIMINGS.bank_verdict + 1)
    world.line.mode = "up"
    world.run(420.0)
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)
    assert all(worker.successes for worker in world.workers)


def test_somebody_else_logs_in_again_and_again_with_the_same_key(variant: Variant) -> None:
    world = scene(variant, "ab", bank=Bank("single", LIFE), patience=60.0)
    for when in range(30, 3500, 120):
        world.at(float(when), log_in_elsewhere, world)
    world.run(3500.0)
    assert len(world.bank.logins) == 3
