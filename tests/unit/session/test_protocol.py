# SPDX-License-Identifier: Apache-2.0
"""Each rule of the renewal, in a world of one to three workers, with at most one fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import (
    IntergiroAuthError,
    StoreUnavailable,
)
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import (
    Refresh,
    Renewed,
)
from tests.unit.session.actors import Use, Variant
from tests.unit.session.bank import EPOCH, RULES, Bank, Rule
from tests.unit.session.faults import Fault, Script, is_effect, overwritten
from tests.unit.session.scene import (
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    hows,
    lease_of,
    scene,
    stored,
    with_session,
)

# Without faults.


@pytest.mark.parametrize("rule", RULES)
def test_cold_start_is_one_login(variant: Variant, rule: Rule) -> None:
    world = scene(variant, "abcd", bank=Bank(rule, LIFE), gap=0.0).run(60.0)
    assert len(world.bank.logins) == 1
    assert all(worker.successes for worker in world.workers)
    assert stored(world).gen == 1


def test_a_cold_start_under_a_lock_waits_unless_all_are_known_to_take_it(variant: Variant) -> None:
    first = {}
    for exclusive in (True, False):
        world = scene(variant, "abcd", locks=dict.fromkeys("abcd", "L"), gap=0.0)
        for worker in world.workers:
            worker.member = replace(worker.member, exclusive=exclusive)
        world.run(60.0)
        assert len(world.bank.logins) == 1
        first[exclusive] = min(worker.successes[0] for worker in world.workers)
    assert first[True] <= first[False] - TIMINGS.settle_lease


@pytest.mark.parametrize("rule", RULES)
def test_expiry_is_one_refresh(variant: Variant, rule: Rule) -> None:
    world = scene(variant, "abcd", bank=Bank(rule, LIFE), gap=0.0)
    with_session(world)
    world.run(60.0)
    assert calls(world).count("Refresh") == 0
    assert [call.split(":")[1] for call in calls(world)] == ["Probe", "Refresh"]
    assert (world.bank.refreshes, world.bank.early, world.bank.reused, len(world.bank.logins)) == (1, 0, 0, 0)
    assert all(worker.successes for worker in world.workers)


@pytest.mark.parametrize("rule", RULES)
def test_end_of_the_session_is_one_refused_refresh_and_one_login(variant: Variant, rule: Rule) -> None:
    world = scene(variant, "abcd", bank=Bank(rule, LIFE), gap=0.0)
    with_session(world)
    end_sessions(world, 0.0)
    world.run(60.0)
    assert [call.split(":")[1] for call in calls(world)] == ["Probe", "Refresh", "LogIn"]
    assert all(worker.successes for worker in world.workers)


def test_many_lives_without_a_fault(variant: Variant) -> None:
    # Three sessions of 59 minutes, each with three refreshes and a refused one.
    world = scene(variant, "abc", bank=Bank("revoke", LIFE, 3540.0), gap=1.0).run(3 * 3540.0)
    bank = world.bank
    assert (len(bank.logins), bank.refreshes, bank.early, bank.reused, bank.refused_ended) == (3, 9, 0, 0, 2)
    assert not any(worker.errors for worker in world.workers)


def test_live_session_costs_no_call(variant: Variant) -> None:
    world = scene(variant, "ab")
    with_session(world, age=10.0)
    world.run(30.0)
    assert calls(world) == []
    assert not any(what.startswith("Write") for _, who, what in world.trace or [] if who != "person")


def test_waiter_uses_what_the_holder_stored(variant: Variant) -> None:
    world = scene(variant, "ab", gap=0.5)
    with_session(world)
    world.run(30.0)
    assert hows(world) == ["a:found", "b:found", "a:refreshed", "b:found"]
    assert calls(world) == ["a:Probe", "a:Refresh"]


def test_generations_rise_and_the_login_is_remembered(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world)
    login_at = stored(world).login_at
    world.run(30.0)
    assert (stored(world).gen, stored(world).nonce, stored(world).login_at) == (6, lease_of(world).nonce, login_at)
    end_sessions(world, 31.0)
    world.run(60.0)
    assert stored(world).gen == 7
    assert stored(world).login_at == pytest.approx(EPOCH + world.bank.logins[0], abs=3.0)


def test_bank_that_sends_no_new_refresh_token(variant: Variant) -> None:
    bank = Bank("lenient", LIFE)
    bank.keeps_refresh_token = True
    world = scene(variant, "a", bank=bank)
    pair = with_session(world)
    world.run(30.0)
    assert stored(world).refresh_token == pair.refresh
    assert stored(world).gen == 6


# A 401 that is not an expiry.


def test_refused_request_with_a_live_session_is_a_permission(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Use), Fault("forbidden"), times=2)
    world = scene(variant, "a", faults=faults)
    with_session(world, age=10.0)
    world.run(12.0)
    assert calls(world) == ["a:Probe"]
    assert isinstance(world["a"].error, IntergiroAuthError)
    assert lease_of(world).release_reason == "free"


def test_lease_is_free_at_once_after_a_permission(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Use), Fault("forbidden"), times=2)
    world = scene(variant, "ab", faults=faults, gap=10.0)
    with_session(world, age=LIFE - 9.0)
    world.run(30.0)
    assert calls(world) == ["a:Probe", "b:Probe", "b:Refresh"]


# The lease of another process.


def test_lease_is_taken_over_only_after_its_time(variant: Variant) -> None:
    world = scene(variant, "ab")
    with_session(world)
    world.variables.apply("lease", Lease(gen=5, nonce="dead"))
    world.run(TIMINGS.takeover)
    assert calls(world) == []
    world.run(TIMINGS.takeover + 20.0)
    assert [call.split(":")[1] for call in calls(world)] == ["Probe", "Refresh"]


def test_wait_ends_with_a_retriable_error(variant: Variant) -> None:
    def lively(now: float = 0.0) -> None:
        # A process that acquires the lease again and again without a result.
        world.variables.apply("lease", Lease(gen=5, nonce=f"x{now}"))
        world.at(world.t + 100.0, lively, world.t + 100.0)

    world = scene(variant, "a")
    with_session(world)
    lively()
    world.run(TIMINGS.wait + 10.0)
    assert isinstance(world["a"].error, StoreUnavailable)
    assert "lock_conn_id" in str(world["a"].error)
    assert calls(world) == []


def test_lease_lost_before_entering(variant: Variant) -> None:
    world = scene(variant, "a")
    with_session(world)
    world.at(2.0, world.variables.apply, "lease", Lease(gen=5, nonce="other"))
    world.run(100.0)
    assert calls(world) == []


@pytest.mark.parametrize(
    "others", [[None, None], [Lease(5, nonce, release_reason="free") for nonce in ("x", "y", "z")]]
)
def test_lease_that_is_lost_again_and_again_is_not_hidden(variant: Variant, others: list[Lease | None]) -> None:
    world = scene(variant, "a", faults=overwritten("lease", *others))
    with_session(world)
    world.variables.apply("lease", others[0])
    world.run(60.0)
    assert calls(world) == ["a:Probe", "a:Refresh"]
    assert not world["a"].errors


# The caller gives up.


@pytest.mark.parametrize("when", [0.05, 0.5, 2.0])
def test_abandoned_before_the_bank_was_asked(variant: Variant, when: float) -> None:
    world = scene(variant, "ab", gap=5.0, api=0.02)
    with_session(world)

    def give_up() -> None:
        renewal = world["a"].renewal
        assert renewal is not None
        renewal.abandon()

    world.at(when + 0.5, give_up)
    world.run(30.0)
    assert world["a"].abandoned == 1
    # No other process has to wait for the end of its lease.
    assert calls(world) == ["b:Probe", "b:Refresh"]


def test_abandoned_after_the_bank_was_asked_is_carried_through(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Refresh), Fault("pause_after", 5.0))
    world = scene(variant, "a", faults=faults)
    with_session(world)

    def give_up() -> None:
        renewal = world["a"].renewal
        assert renewal is not None
        renewal.abandon()

    world.at(7.0, give_up)
    world.run(30.0)
    assert (world["a"].abandoned, stored(world).gen) == (0, 6)


def test_renewed_says_nothing_of_tokens() -> None:
    assert "secret" not in repr(Renewed(TokenPair("secret-a", "secret-r", 1, "n"), "found"))
