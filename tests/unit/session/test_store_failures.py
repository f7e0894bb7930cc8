# SPDX-License-Identifier: Apache-2.0
"""A store that fails, or whose reads find nothing, at each point of a renewal."""

from __future__ import annotations

import pytest

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.effects import ConfirmAbsent, Refresh
from tests.unit.session import variables
from tests.unit.session.actors import Variant
from tests.unit.session.faults import Fault, Script, is_effect, read, write
from tests.unit.session.scene import LIFE, TIMINGS, calls, end_sessions, lease_of, put, scene, stored, with_session
from tests.unit.session.world import World

SOON = 60.0
SUCCESSION = TIMINGS.takeover + TIMINGS.settle_session + 90.0
"""Seconds within which another process takes over, waits for late writes, and renews."""


def log_in_elsewhere(world: World) -> None:
    world.bank.log_in("key-1", world.t, person=True)


def set_mode(world: World, mode: variables.Mode) -> None:
    world.variables.mode = mode


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
    # It continues with the pair in memory. The others log in once.
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


# Reads that find nothing.


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
    # No process has to wait for the end of a lease.
    assert world.variables.documents["lease"] is None or lease_of(world).release_reason == "free"


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
