# SPDX-License-Identifier: Apache-2.0
"""What surrounds a renewal: other locks, other keys, persons who write Variables, and what hides them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import IntergiroAuthError, LockMismatch, LoginBudgetExhausted, ShadowedError
from intergiro_provider.session.documents import Lease, Ledger, Login, Verdict
from tests.unit.session.actors import Variant
from tests.unit.session.bank import EPOCH, Bank
from tests.unit.session.faults import Fault, Script, read
from tests.unit.session.scene import (
    KEY,
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    lease_of,
    put,
    scene,
    seeded,
    stored,
    with_session,
)

# Strict locks.


def test_strict_lock_needs_no_waiting(variant: Variant) -> None:
    world = scene(variant, "ab", locks={"a": "L", "b": "L"}, gap=0.0)
    with_session(world, lock="L")
    world.variables.apply("lease", Lease(gen=5, nonce="dead"))
    world.run(TIMINGS.settle_lease)
    assert [call.split(":")[1] for call in calls(world)] == ["Probe", "Refresh"]
    assert stored(world).lock == "L"


def test_strict_lock_waits_like_everybody_until_a_session_names_it(variant: Variant) -> None:
    world = scene(variant, "a", locks={"a": "L"})
    with_session(world, lock=None)
    world.variables.apply("lease", Lease(gen=5, nonce="plain"))
    world.run(TIMINGS.takeover)
    assert calls(world) == []
    world.run(TIMINGS.takeover + 30.0)
    assert stored(world).lock == "L"


@pytest.mark.parametrize("mine", [None, "M"])
def test_other_lock_is_a_mismatch(variant: Variant, mine: str | None) -> None:
    world = scene(variant, "a", locks={"a": mine})
    with_session(world, lock="L")
    world.run(30.0)
    assert isinstance(world["a"].error, LockMismatch)
    assert calls(world) == []
    put(world, None)
    world.run(100.0)
    assert world["a"].successes


def test_other_lock_may_use_what_is_alive(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world, age=10.0, lock="L")
    world.run(30.0)
    assert world["a"].successes
    assert not world["a"].errors


# Another key.


def test_session_of_another_key_is_never_used(variant: Variant) -> None:
    world = scene(variant, "a")
    pair = with_session(world, age=10.0, key="key-0")
    world.run(30.0)
    assert calls(world) == ["a:LogIn"]
    assert pair.newest
    assert (stored(world).key, stored(world).gen) == (KEY, 6)


def test_key_that_was_changed_meanwhile_is_looked_up(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world, age=10.0, key="key-2")
    world["a"].connection_key = "key-2"
    world.run(30.0)
    assert calls(world) == []
    assert world["a"].successes


def test_two_keys_on_one_variable_stop_at_the_budget(variant: Variant) -> None:
    world = scene(variant, "ab", keys={"b": "key-2"}, patience=60.0).run(3500.0)
    assert len(world.bank.logins) == 3
    assert isinstance(world["a"].error or world["b"].error, LoginBudgetExhausted)


def test_verdict_on_another_key_is_not_mine(variant: Variant) -> None:
    world = scene(variant, "ab", keys={"a": "key-0"}, gap=10.0)
    world.bank.refused_keys.add("key-0")
    world.run(60.0)
    assert isinstance(world["a"].error, IntergiroAuthError)
    assert world["b"].successes


# A session that a person put there.


def test_seeded_session_is_used_at_once_and_renewed_later(variant: Variant) -> None:
    world = scene(variant, "ab")
    pair = world.bank.log_in(KEY, 0.0, person=True)
    put(world, seeded(pair))
    world.run(LIFE - 20.0)
    assert stored(world).seeded
    world.run(LIFE + 30.0)
    assert [call.split(":")[1] for call in calls(world)] == ["Probe", "Refresh"]
    assert (stored(world).key, stored(world).gen, stored(world).seeded) == (KEY, 1, False)
    assert world.bank.logins == []


def test_session_seeded_over_an_older_one_is_found_by_those_who_have_that_in_memory(variant: Variant) -> None:
    world = scene(variant, "ab", bank=Bank("single", LIFE))
    with_session(world, age=LIFE - 100.0)
    world.run(50.0)
    put(world, seeded(world.bank.log_in(KEY, 50.0, person=True)))
    world.run(3000.0)
    assert world.bank.logins == []
    assert world.bank.refused_ended == 0
    assert not any(worker.errors for worker in world.workers)


def test_seeded_session_ends_the_verdict_on_the_former_one(variant: Variant) -> None:
    world = scene(variant, "a", patience=30.0)
    with_session(world)
    world.variables.apply("ledger", Ledger(tuple(Login(EPOCH, f"x{n}", EPOCH + 3600.0) for n in range(3))))
    end_sessions(world, 0.0)
    world.run(20.0)
    assert lease_of(world).verdict == "budget"
    put(world, seeded(world.bank.log_in(KEY, -LIFE, person=True)))
    world.run(90.0)
    assert world["a"].successes
    assert calls(world)[-1] == "a:Refresh"


def test_restored_session_is_marked_then_given_up(variant: Variant) -> None:
    world = scene(variant, "a")
    pair = with_session(world)
    newer = world.bank.refresh(pair.refresh, 0.0)
    assert newer is not None
    world.variables.apply("lease", Lease(gen=9, nonce="n10"))
    # Nobody can tell that lease from one that is held.
    world.run(TIMINGS.takeover + 60.0)
    assert calls(world) == ["a:Probe", "a:Refresh", "a:LogIn"]
    assert stored(world).gen == 10


@pytest.mark.parametrize("verdict", [None, "free"])
def test_session_that_only_seems_to_have_gone_backwards(variant: Variant, verdict: Verdict | None) -> None:
    """The session is read, then renewed, and its next lease taken, before the lease is read."""
    world = scene(variant, "ab", faults=Script().on("a", read("lease"), Fault("pause", 30.0)), gap=5.0, api=0.01)
    with_session(world, age=LIFE - 1.0)
    world.run(10.0)
    assert stored(world).gen == 6
    assert world["b"].renewed[-1][1].how == "refreshed"
    # b is about to renew that one as well when a wakes up.
    world.at(33.9, world.variables.apply, "lease", Lease(gen=6, nonce="b9", verdict=verdict))
    world.run(40.0)
    assert not any(who == "a" and what.startswith("Write") for _, who, what in world.trace or [])
    assert world["a"].renewed[-1][1].how == "found"


def test_session_without_a_refresh_token_is_followed_by_a_login(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world)
    put(world, replace(stored(world), refresh_token=""))
    world.run(60.0)
    assert "a:Refresh" not in calls(world)
    assert calls(world)[-1] == "a:LogIn"


# Something hides the Variables.


def test_hidden_session_is_found_out_before_the_bank_is_asked_if_seeded(variant: Variant) -> None:
    world = scene(variant, "a")
    pair = world.bank.log_in(KEY, -LIFE - 1.0, person=True)
    world.variables.shadow["session"] = seeded(pair)
    world.run(30.0)
    assert isinstance(world["a"].error, ShadowedError)
    assert "a:Refresh" not in calls(world)


def test_hidden_session_that_was_renewed_is_kept_in_memory_and_reported(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world)
    world.variables.shadow["session"] = stored(world)
    world.run(30.0)
    renewed = world["a"].renewed[-1][1]
    assert (renewed.how, renewed.stored, renewed.shadowed) == ("refreshed", False, True)
    assert world["a"].successes


@pytest.mark.parametrize("slot", ["lease", "ledger"])
def test_hidden_lease_or_ledger_is_found_out_before_the_bank_is_asked(variant: Variant, slot: str) -> None:
    world = scene(variant, "a")
    world.variables.shadow[slot] = Lease(gen=-1, nonce="old") if slot == "lease" else Ledger((Login(0.0, "old", 0.0),))
    world.run(60.0)
    assert isinstance(world["a"].error, ShadowedError)
    assert calls(world) == []


def test_hidden_session_that_was_renewed_costs_the_next_ones_no_login(variant: Variant) -> None:
    world = scene(variant, "ab", gap=20.0, patience=60.0)
    with_session(world)
    world.variables.shadow["session"] = stored(world)
    world.run(TIMINGS.takeover + 30.0)
    assert calls(world) == ["a:Probe", "a:Refresh"]
    assert isinstance(world["b"].error, ShadowedError)
    # The newer one is there, behind what hides it.
    world.variables.shadow.clear()
    world.run(TIMINGS.takeover + 200.0)
    assert world["b"].renewed[-1][1].how == "found"
    assert world.bank.logins == []
