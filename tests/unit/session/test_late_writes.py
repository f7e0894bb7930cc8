# SPDX-License-Identifier: Apache-2.0
"""Writes that are slow or take effect again later, and other violations of the exclusion."""

from __future__ import annotations

from typing import Any

import pytest

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import Lease, Login, LoginHistory
from intergiro_provider.session.effects import ConfirmAbsent, LogIn, Probe, Refresh
from tests.unit.session.actors import Use, Variant
from tests.unit.session.bank import EPOCH
from tests.unit.session.faults import Fault, Faults, Script, is_effect, overwritten, read, write
from tests.unit.session.scene import (
    KEY,
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    lease_of,
    put,
    scene,
    session_of,
    stored,
    with_session,
)
from tests.unit.session.world import World

LONG = TIMINGS.takeover + TIMINGS.settle_session + 90.0


LOOKED = is_effect(ConfirmAbsent, "lease")
"""The last read of a missing lease."""


def quick(variant: Variant, names: str, faults: Faults, **settings: Any) -> World:
    """Return a world that is fast except for the faults, so that the order of events is known."""
    return scene(variant, names, faults=faults, api=0.02, bank_call=0.1, slow_calls=0.0, **settings)


def logged_in(world: World) -> list[str]:
    return [call for call in calls(world) if call.endswith("LogIn")]


# The lease.


def test_lease_write_that_was_slow_once_is_not_entered_on(variant: Variant) -> None:
    faults = Script().on("a", write("lease"), Fault("slow", 1.5))
    world = quick(variant, "a", faults)
    with_session(world)
    world.run(20.0)
    trace = world.trace or []
    leases = [t for t, who, what in trace if who == "a" and what.startswith("Write lease")]
    probe = next(t for t, _, what in trace if what.startswith("Probe"))
    assert len(leases) == 2
    assert probe - leases[1] >= TIMINGS.settle_lease


def test_lease_write_that_is_slow_twice_is_an_error_with_a_remedy(variant: Variant) -> None:
    world = quick(variant, "a", Script().on("a", write("lease"), Fault("slow", 1.5), times=2))
    with_session(world)
    world.run(8.0)
    error = world["a"].error
    assert isinstance(error, StoreUnavailable)
    assert "lock_conn_id" in str(error)
    assert calls(world) == []


def test_slow_lease_writes_are_counted_in_a_row(variant: Variant) -> None:
    faults = (
        Script()
        .on("a", write("lease"), Fault("slow", 1.5))
        .on("a", read("lease"), Fault("missing"), nth=3)
        .on("a", write("lease"), Fault("slow", 1.5), nth=2)
    )
    world = quick(variant, "a", faults)
    with_session(world)
    world.run(40.0)
    assert faults.spent
    assert not world["a"].errors
    assert world.bank.refreshes == 1


def test_distributed_lock_does_not_mind_slow_lease_writes(variant: Variant) -> None:
    faults = Script().on("a", write("lease"), Fault("slow", 1.5), times=2)
    world = quick(variant, "a", faults, locks={"a": "L"})
    with_session(world, lock="L")
    world.run(8.0)
    assert calls(world) == ["a:Probe", "a:Refresh"]


def test_late_copy_of_a_slow_lease_write_is_no_win(variant: Variant) -> None:
    """b reads the lease before a's write and acquires it. During b's login, a's second copy overwrites its lease."""
    faults = (
        Script()
        .on("a", write("lease"), Fault("slow", 1.9, 4.1, first=0.05))
        .on("b", write("lease"), Fault("pause", 0.6))
        .on("b", is_effect(LogIn), Fault("pause_after", 10.0))
    )
    world = quick(variant, "ab", faults, gap=0.0).run(LONG)
    assert faults.spent
    assert logged_in(world) == ["b:LogIn"]
    assert world["a"].successes


def test_own_lease_that_came_back_over_another_is_taken_but_settled_first(variant: Variant) -> None:
    """As above, but a has given up in favor of b before its own write takes effect again."""
    faults = (
        Script()
        .on("a", write("lease"), Fault("slow", 1.5, 9.0, first=0.05))
        .on("b", write("lease"), Fault("pause", 0.6))
        .on("b", is_effect(LogIn), Fault("pause_after", 15.0))
    )
    world = quick(variant, "ab", faults, gap=0.0)
    world.run(LONG)
    assert faults.spent
    assert logged_in(world) == ["b:LogIn"]
    assert world["a"].successes


def test_lease_that_was_lost_while_the_history_was_read(variant: Variant) -> None:
    faults = (
        Script()
        .on("a", write("lease"), Fault("slow", 1.5, 9.0, first=0.05))
        .on("b", write("lease"), Fault("pause", 0.6))
        .on("b", read("logins"), Fault("pause", 40.0))
    )
    world = quick(variant, "ab", faults, gap=0.0).run(LONG)
    assert faults.spent
    assert logged_in(world) == ["a:LogIn"]


@pytest.mark.parametrize("lock", [None, "L"])
def test_round_from_the_read_to_the_write_that_took_too_long(variant: Variant, lock: str | None) -> None:
    """With a lock that b does not have, a continues, but waits for a pair that b may store."""
    faults = Script().on("a", LOOKED, Fault("pause_after", 3.0)).on("b", is_effect(LogIn), Fault("pause_after", 9.0))
    world = quick(variant, "ab", faults, gap=0.2, locks={"a": lock}).run(LONG)
    assert faults.spent
    assert logged_in(world) == ["b:LogIn"]


def test_round_that_took_nearly_too_long(variant: Variant) -> None:
    """One worker reads before the other's write and writes after it. The other one detects that."""
    faults = Script().on("a", LOOKED, Fault("pause_after", 1.6))
    world = quick(variant, "ab", faults, gap=0.01).run(LONG)
    assert faults.spent
    assert logged_in(world) == ["a:LogIn"]


def test_owner_that_takes_all_the_time_it_has(variant: Variant) -> None:
    faults = (
        Script()
        .on("a", is_effect(Probe), Fault("pause_after", 19.0))
        .on("a", is_effect(Refresh), Fault("pause_after", 19.0))
        .on("a", write("session"), Fault("slow", 39.0, 39.0))
    )
    world = quick(variant, "ab", faults, gap=1.0)
    with_session(world)
    world.run(LONG)
    assert faults.spent
    assert (world.bank.refreshes, world.bank.reused, len(world.bank.logins)) == (1, 0, 0)


def test_late_copy_of_a_lease_write_overwrites_no_session(variant: Variant) -> None:
    faults = Script().on("a", write("lease"), Fault("slow", 1.5, 15.0, first=0.05))
    world = quick(variant, "a", faults)
    with_session(world)
    world.run(30.0)
    assert world.bank.refreshes == 1
    assert stored(world).gen == 6


@pytest.mark.parametrize("skew", [0.0, 60.0])
def test_late_copy_of_a_release_frees_nothing(variant: Variant, skew: float) -> None:
    """a releases the lease with a reason. Its write takes effect again when b holds the lease and refreshes."""

    def has_release_reason(effect: Any) -> bool:
        return write("lease")(effect) and effect.document.release_reason is not None

    faults = (
        Script()
        .on("a", is_effect(Use), Fault("forbidden"))
        .on("a", has_release_reason, Fault("slow", 1.5, 20.0))
        .on("b", is_effect(Refresh), Fault("pause_after", 14.0))
    )
    world = quick(variant, "abc", faults, skews={"b": skew, "c": skew})
    world["a"].work = world["b"].work = world["c"].work = 1.0
    with_session(world, age=LIFE - 20.0)
    world.run(LONG)
    assert faults.spent
    assert world.bank.logins == []
    assert all(worker.successes for worker in world.workers)


def test_late_copy_of_the_release_after_a_first_login_frees_nothing(variant: Variant) -> None:
    """a has logged in and released the lease. Its write takes effect again when b holds the next lease."""

    def is_release(effect: Any) -> bool:
        return write("lease")(effect) and effect.document.release_reason == "done"

    faults = (
        Script()
        .on("a", is_release, Fault("slow", 1.5, 8.0))
        .on(None, is_effect(LogIn), Fault("pause_after", 12.0), nth=2)
    )
    world = quick(variant, "abc", faults, gap=6.0)
    end_sessions(world, 5.0)
    world.run(LONG)
    assert faults.spent
    assert len(world.bank.logins) == 2
    assert all(worker.successes for worker in world.workers)


# The session.


def test_sleeper_that_stores_while_the_successor_settles(variant: Variant) -> None:
    faults = Script().on("a", write("session"), Fault("pause", TIMINGS.takeover + 10.0))
    world = quick(variant, "ab", faults, gap=4.0)
    with_session(world)
    world.run(LONG)
    assert faults.spent
    assert world.bank.logins == []
    assert world["b"].successes


def test_sleeper_drops_its_copy_for_a_newer_session(variant: Variant) -> None:
    """a loses its lease to a late copy of b's, and is stopped with its new pair until b has logged in."""
    faults = (
        Script()
        .on("b", write("lease"), Fault("slow", 1.5, 5.5, first=0.05))
        .on("a", write("lease"), Fault("pause", 0.6))
        .on("a", is_effect(Refresh), Fault("pause_after", 60.0))
    )
    world = quick(variant, "ab", faults, gap=0.0)
    with_session(world)
    world.run(LONG)
    assert faults.spent
    assert logged_in(world) == ["b:LogIn"]
    assert stored(world).nonce.startswith("b")
    assert world["a"].renewed[-1][1].how == "found"


def restored(world: World, lock: str | None = None) -> None:
    """Store a session that is older than its lease, and that can still be refreshed."""
    pair = world.bank.log_in(KEY, -LIFE - 1.0, person=True)
    put(world, session_of(pair, lock=lock))
    world.variables.apply("lease", Lease(gen=6, nonce="n7", release_reason="free"))


@pytest.mark.parametrize("kind", ["slow", "fail_applied"])
@pytest.mark.parametrize("lock", [None, "L"])
def test_late_copy_of_the_mark_on_a_restored_session(variant: Variant, kind: Any, lock: str | None) -> None:
    faults = Script().on("a", write("session"), Fault(kind, 2.0, 20.0))
    world = quick(variant, "ab", faults, locks={"a": lock, "b": lock})
    restored(world, lock)
    world.run(LONG)
    assert faults.spent
    assert (world.bank.refreshes, stored(world).gen) == (1, 7)


def test_mark_that_cannot_be_read_for_a_moment(variant: Variant) -> None:
    faults = Script().on("a", read("session"), Fault("missing"), nth=4)
    world = quick(variant, "a", faults)
    restored(world)
    world.run(60.0)
    assert faults.spent
    assert [type(error) for _, error in world["a"].errors] == [StoreUnavailable]
    assert (world.bank.refreshes, len(world.bank.logins)) == (1, 0)


# The login history.


def logins_in_the_history(world: World) -> int:
    history = world.variables.documents["logins"]
    return 0 if history is None else len(history.logins)


def test_late_copy_of_a_lease_write_strikes_no_login_off(variant: Variant) -> None:
    faults = Script().on("a", write("lease"), Fault("slow", 1.5, 39.0, first=0.05))
    world = quick(variant, "a", faults).run(60.0)
    assert len(world.bank.logins) == 1
    assert logins_in_the_history(world) == 1


def test_late_copy_of_a_history_write_strikes_no_login_off(variant: Variant) -> None:
    faults = Script().on("a", write("logins"), Fault("slow", 1.5, 38.0))
    world = quick(variant, "ab", faults, gap=1.0)
    end_sessions(world, 34.0)
    world.run(LONG)
    assert faults.spent
    assert len(world.bank.logins) in (1, 2)
    assert logins_in_the_history(world) >= len(world.bank.logins)


def test_late_copy_of_a_second_write_to_the_history(variant: Variant) -> None:
    """A second write of the same process takes effect late, when sessions have ended and others have logged in."""
    faults = Script().on("a", write("logins"), Fault("slow", 2.0, 30.0, first=0.1), nth=2)
    world = quick(variant, "ab", faults)
    for when in (300.0, 350.0, 400.0):
        end_sessions(world, when)
    world.run(3000.0)
    assert faults.spent
    assert len(world.bank.logins) == 3


def test_login_history_that_another_write_overwrote_is_written_again(variant: Variant) -> None:
    other = Login(EPOCH, "other", EPOCH + 3600.0)
    world = quick(variant, "a", overwritten("logins", LoginHistory((other,)))).run(LONG)
    assert calls(world) == ["a:LogIn"]
    assert [entry.nonce for entry in world.variables.documents["logins"].logins] == ["other", stored(world).nonce]


def test_login_history_that_cannot_be_read_back_for_a_moment(variant: Variant) -> None:
    faults = Script().on("a", read("logins"), Fault("missing"), nth=2)
    world = quick(variant, "a", faults).run(200.0)
    assert faults.spent
    assert [type(error) for _, error in world["a"].errors] == [StoreUnavailable]
    assert len(world.bank.logins) == 1


# Reads of one worker that find nothing.


@pytest.mark.parametrize("times", [1, 2, 3, 4, 5])
def test_blind_worker_respects_the_lease(variant: Variant, times: int) -> None:
    faults = (
        Script()
        .on("a", is_effect(Refresh), Fault("pause_after", 15.0))
        .on("b", read("session"), Fault("missing"), times=times)
    )
    world = quick(variant, "ab", faults, gap=4.0)
    with_session(world)
    world.run(LONG)
    assert faults.spent
    assert (world.bank.refreshes, world.bank.reused, len(world.bank.logins)) == (1, 0, 0)
    assert lease_of(world).nonce == stored(world).nonce


def test_blind_worker_does_not_log_in(variant: Variant) -> None:
    faults = Script().on("a", read("session"), Fault("missing"), times=6)
    world = quick(variant, "a", faults)
    with_session(world)
    world.run(60.0)
    assert faults.spent
    assert world.bank.logins == []
