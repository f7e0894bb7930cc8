# SPDX-License-Identifier: Apache-2.0
"""Other locks, other keys, edited Variables, and hidden Variables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import LockMismatch, ShadowedError, StoreUnavailable
from intergiro_provider.session.documents import Lease, Login, LoginHistory, ReleaseReason, TokenPair
from intergiro_provider.session.effects import KeyChanged, Refresh
from tests.unit.session.actors import Variant
from tests.unit.session.bank import Bank
from tests.unit.session.faults import Fault, Script, is_effect, overwritten, read, write
from tests.unit.session.scene import (
    KEY,
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    put,
    scene,
    session_of,
    stored,
    with_session,
)

# Distributed locks.


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


def test_distributed_lock_admits_the_first_login_to_a_slow_store(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = scene(variant, "ab", locks={"a": "L", "b": "L"}, gap=1.0)
    monkeypatch.setattr(world.variables, "way", lambda effect: (0.6, 0.6))
    world.run(TIMINGS.settle_session + 60.0)
    assert calls(world) == ["a:LogIn"]
    assert stored(world).lock == "L"
    assert [entry.nonce for entry in world.variables.documents["logins"].logins] == [stored(world).nonce]
    assert all(worker.successes and not worker.errors for worker in world.workers)


def test_slow_write_of_the_history_is_outlasted_before_the_lock_is_released(variant: Variant) -> None:
    """A late copy of it would remove the login that another task makes when it has acquired the lock."""
    faults = Script().on("a", write("logins"), Fault("slow", 2.0, 39.0))
    world = scene(variant, "ab", locks={"a": "L", "b": "L"}, faults=faults, gap=0.5, api=0.02)
    end_sessions(world, 12.0)
    world.run(200.0)
    assert faults.spent
    assert len(world.bank.logins) == 2
    assert len(world.variables.documents["logins"].logins) == 2


def test_store_that_is_too_slow_for_the_lease_alone_names_what_may_be_slow(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = scene(variant, "a")
    monkeypatch.setattr(world.variables, "way", lambda effect: (0.5, 0.5))
    world.run(40.0)
    assert isinstance(world["a"].error, StoreUnavailable)
    assert "secrets backend" in str(world["a"].error)
    assert "`lock_conn_id`" in str(world["a"].error)


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


@pytest.mark.parametrize("ended", [False, True])
def test_key_that_has_changed_is_not_used_for_a_login(variant: Variant, ended: bool) -> None:
    world = scene(variant, "a")
    world["a"].key_changed = True
    if ended:
        with_session(world)
        end_sessions(world, 0.0)
    with pytest.raises(KeyChanged):
        world.run(60.0)
    assert calls(world) == (["a:Probe", "a:Refresh"] if ended else [])
    assert world.variables.documents["lease"].release_reason == "free"


# A session that a person has deleted or restored.


def test_restored_session_is_found_by_those_who_have_a_newer_one_in_memory(variant: Variant) -> None:
    """The restored session is of another login than the newer one, which has ended."""
    world = scene(variant, "ab", bank=Bank("single", LIFE))
    with_session(world, age=LIFE - 100.0)
    world.run(50.0)
    put(world, session_of(world.bank.log_in(KEY, 50.0, person=True), gen=3, nonce="n3"))
    world.run(3000.0)
    assert world.bank.logins == []
    assert world.bank.refused_ended == 0
    assert not any(worker.errors for worker in world.workers)


def test_restored_session_is_refreshed_later_where_only_the_newer_one_was_refused(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Refresh), Fault("busy", late=5.0), nth=2)
    world = scene(variant, "a", bank=Bank("single", LIFE), faults=faults)
    with_session(world, age=10.0)
    world.run(50.0)
    put(world, session_of(world.bank.log_in(KEY, 50.0 - LIFE, person=True), gen=3, nonce="n3"))
    world.run(TIMINGS.takeover + 200.0)
    assert calls(world)[:4] == ["a:Probe", "a:Probe", "a:Refresh", "a:Refresh"]
    assert world.bank.logins == []
    assert stored(world).nonce != "n3"


def test_restored_session_is_marked_then_given_up(variant: Variant) -> None:
    world = scene(variant, "a")
    pair = with_session(world)
    newer = world.bank.refresh(pair.refresh, 0.0)
    assert newer is not None
    world.variables.apply("lease", Lease(gen=9, nonce="n10"))
    # That lease cannot be distinguished from a held one.
    world.run(TIMINGS.takeover + 60.0)
    assert calls(world) == ["a:Probe", "a:Refresh", "a:LogIn"]
    assert stored(world).gen == 10


@pytest.mark.parametrize("release_reason", [None, "free"])
def test_session_that_only_seems_to_have_gone_backwards(variant: Variant, release_reason: ReleaseReason | None) -> None:
    """Between the reads of session and lease, the session is renewed, and its next lease is acquired."""
    world = scene(variant, "ab", faults=Script().on("a", read("lease"), Fault("pause", 30.0)), gap=5.0, api=0.01)
    with_session(world, age=LIFE - 1.0)
    world.run(10.0)
    assert stored(world).gen == 6
    assert world["b"].renewed[-1][1].how == "refreshed"
    # b is about to renew that one, too, when a continues.
    world.at(33.9, world.variables.apply, "lease", Lease(gen=6, nonce="b9", release_reason=release_reason))
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


# Hidden Variables.


def test_hidden_session_is_found_out_before_the_bank_is_asked_if_older_than_its_lease(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world)
    world.variables.shadow["session"] = stored(world)
    world.variables.apply("lease", Lease(gen=6, nonce="n7", release_reason="free"))
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


@pytest.mark.parametrize("others", [[TokenPair("old", "old", 5, "n5")], [None, None]])
def test_session_that_was_overwritten_as_it_was_stored_is_not_hidden(
    variant: Variant, others: list[TokenPair | None]
) -> None:
    world = scene(variant, "a", faults=overwritten("session", *others))
    with_session(world)
    world.run(30.0)
    renewed = world["a"].renewed[-1][1]
    assert (renewed.how, renewed.stored, renewed.shadowed) == ("refreshed", True, False)
    assert stored(world) == renewed.pair


@pytest.mark.parametrize("gen", [6, 7])
def test_session_that_was_overwritten_by_a_newer_one_at_last_is_not_hidden(variant: Variant, gen: int) -> None:
    newer = TokenPair("newer", "newer", gen, "n")
    world = scene(variant, "a", faults=overwritten("session", TokenPair("old", "old", 5, "n5"), newer))
    with_session(world)
    renewed = world["a"].renewed
    world.run(30.0, done=lambda: len(renewed) == 2)
    assert (renewed[-1][1].how, renewed[-1][1].pair) == ("found", newer)


@pytest.mark.parametrize("slot", ["lease", "logins"])
def test_hidden_lease_or_login_history_is_found_out_before_the_bank_is_asked(variant: Variant, slot: str) -> None:
    world = scene(variant, "a")
    world.variables.shadow[slot] = (
        Lease(gen=-1, nonce="old") if slot == "lease" else LoginHistory((Login(0.0, "old", 0.0),))
    )
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
    # The newer one exists, but is hidden.
    world.variables.shadow.clear()
    world.run(TIMINGS.takeover + 200.0)
    assert world["b"].renewed[-1][1].how == "found"
    assert world.bank.logins == []
