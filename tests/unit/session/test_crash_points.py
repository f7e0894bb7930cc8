# SPDX-License-Identifier: Apache-2.0
"""A renewing process is killed, is stopped, or loses its lock or its bank, at each point of a renewal."""

from __future__ import annotations

import pytest

from intergiro_provider.exceptions import BankUnavailable
from intergiro_provider.session.effects import LogIn, Now, Probe, Refresh
from tests.unit.session import line, variables
from tests.unit.session.actors import Variant
from tests.unit.session.bank import RULES, Bank, Rule
from tests.unit.session.faults import Fault, Kind, Matcher, Script, is_effect, read, write
from tests.unit.session.scene import LIFE, TIMINGS, calls, end_sessions, scene, stored, with_session
from tests.unit.session.world import World

SOON = 60.0
SUCCESSION = TIMINGS.takeover + TIMINGS.settle_session + 90.0
"""Seconds within which another process takes over, waits for late writes, and renews."""


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
    # The rotation is lost: one refused refresh and one login, or none if the old token still works.
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
    # Three reservations without a login. No process can know that, so the login budget of the hour is used up.
    assert world.bank.logins == []
    world.run(3 * 3600.0)
    assert len(world.bank.logins) == 1


# Stop.


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
    # One login by the successor, if there was time. If the stopped process then stores its pair, that costs one more.
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
    # Stopped right before the refresh until after its deadline, it still refreshes, but does not store the pair.
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
    # In each half minute, only one of them sends a request.
    assert len(calls(world)) <= 2 * (300.0 / TIMINGS.bank_pause + 1)
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
