# SPDX-License-Identifier: Apache-2.0
"""Logins: their number in an hour, unknown outcomes, and the wait for a first login that may be in progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroAuthError,
    LoginBudgetExhausted,
)
from intergiro_provider.session.documents import Lease, Login, LoginHistory
from intergiro_provider.session.effects import (
    LogIn,
)
from tests.unit.session.actors import Variant
from tests.unit.session.bank import EPOCH, Bank
from tests.unit.session.faults import Fault, Script, is_effect
from tests.unit.session.scene import (
    KEY,
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    lease_of,
    put,
    scene,
    stored,
)


def test_login_that_was_not_sent_gives_its_slot_back(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(LogIn), Fault("unsent"))).run(15.0)
    assert isinstance(world["a"].error, BankUnavailable)
    assert world.variables.documents["logins"] == LoginHistory()


def test_login_of_unknown_outcome_is_not_repeated(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(LogIn), Fault("lost"))).run(40.0)
    assert isinstance(world["a"].error, BankUnavailable)
    assert calls(world) == ["a:LogIn"]
    assert len(world.variables.documents["logins"].logins) == 1
    world.run(120.0)
    assert calls(world) == ["a:LogIn", "a:LogIn"]


def test_refused_key_is_final_and_told_to_everybody(variant: Variant) -> None:
    world = scene(variant, "ab", bank=Bank("strict", LIFE), gap=6.0)
    world.bank.refused_keys.add(KEY)
    world.run(TIMINGS.takeover)
    assert isinstance(world["a"].error, IntergiroAuthError)
    assert isinstance(world["b"].error, IntergiroAuthError)
    assert all("(it returned 400)" in str(worker.error) for worker in world.workers)
    assert calls(world) == ["a:LogIn"]
    world.bank.refused_keys.clear()
    world.run(TIMINGS.takeover + 60.0)
    assert calls(world).count("a:LogIn") + calls(world).count("b:LogIn") == 2
    assert world["a"].successes
    assert world["b"].successes


def test_budget_stops_logins_and_says_when_the_next_is_allowed(variant: Variant) -> None:
    world = scene(variant, "ab", bank=Bank("strict", LIFE), patience=100.0)
    for when in (100.0, 200.0, 300.0):
        end_sessions(world, when)
    world.run(600.0)
    assert len(world.bank.logins) == 3
    error = world["a"].error
    assert isinstance(error, LoginBudgetExhausted)
    allowed = error.next_at.timestamp() - EPOCH
    assert allowed == pytest.approx(world.bank.logins[0] + 3630.0, abs=3.0)
    # The refresh token of the ended session was sent once, not by every failing task.
    assert world.bank.refused_ended == 3
    world.run(allowed)
    assert len(world.bank.logins) == 3
    world.run(allowed + 300.0)
    assert len(world.bank.logins) == 4
    assert world["a"].successes[-1] > allowed
    assert world["b"].successes[-1] > allowed


@pytest.mark.parametrize("skew", [-3000.0, 3000.0])
def test_budget_holds_for_a_clock_that_is_off_even_if_the_answer_is_lost(variant: Variant, skew: float) -> None:
    faults = Script().on("a", is_effect(LogIn), Fault("lost"), times=4)
    world = scene(variant, "a", faults=faults, skews={"a": skew}, patience=60.0)
    world.run(3700.0)
    assert len(world.bank.logins) == 3
    assert isinstance(world["a"].error, LoginBudgetExhausted)
    world.run(8000.0)
    assert world["a"].successes


def test_budget_counts_all_workers_and_another_key_too(variant: Variant) -> None:
    world = scene(variant, "a")
    world.variables.apply("logins", LoginHistory(tuple(Login(EPOCH, f"x{n}", EPOCH + 3600.0) for n in range(3))))
    world.run(60.0)
    assert calls(world) == []
    assert isinstance(world["a"].error, LoginBudgetExhausted)


def test_a_larger_budget_is_not_bound_by_what_was_found_of_a_smaller_one(variant: Variant) -> None:
    world = scene(variant, "a", patience=30.0)
    world.variables.apply("logins", LoginHistory(tuple(Login(EPOCH, f"x{n}", EPOCH + 3600.0) for n in range(3))))
    world.run(60.0)
    assert lease_of(world).release_reason == "budget"
    assert isinstance(world["a"].error, LoginBudgetExhausted)
    world["a"].member = replace(world["a"].member, max_logins=4)
    world.run(300.0)
    assert len(world.bank.logins) == 1
    assert world["a"].successes


@pytest.mark.parametrize(("age", "waits"), [(30.0, True), (300.0, False)])
@pytest.mark.parametrize("renewed", [False, True])
def test_deleted_session_is_a_login_within_seconds(variant: Variant, renewed: bool, age: float, waits: bool) -> None:
    """No process is working: the first login has released its lease, and every lease ends by the bank's clock."""
    world = scene(variant, "ab", bank=Bank("strict", LIFE), gap=20.0 + age + (LIFE if renewed else 0.0))
    world.run(world["b"].begins - age)
    assert stored(world).gen == (2 if renewed else 1)
    world.kill(world["a"], restart_after=None)
    put(world, None)
    world.run(world["b"].begins + 12.0 + (TIMINGS.settle_session if waits else 0.0))
    assert calls(world, "b") == ["b:LogIn"]
    assert stored(world).gen >= (2 if renewed else 1)


@pytest.mark.parametrize("exact", [False, True])
def test_first_login_that_may_be_under_way_is_waited_for(variant: Variant, exact: bool) -> None:
    world = scene(variant, "a")
    world.variables.apply("lease", Lease(0, "held", at=EPOCH - (0.0 if exact else 1e6), exact=exact))
    world.run(TIMINGS.takeover)
    assert calls(world) == []
    world.run(TIMINGS.takeover + TIMINGS.settle_session + 20.0)
    assert calls(world) == ["a:LogIn"]


def test_lease_that_nobody_can_hold_any_more_is_not_waited_for(variant: Variant) -> None:
    world = scene(variant, "a")
    world.variables.apply("lease", Lease(0, "dead", at=EPOCH - 300.0, exact=True))
    world.run(12.0)
    assert calls(world) == ["a:LogIn"]


def test_generations_do_not_fall_over_a_deleted_session(variant: Variant) -> None:
    world = scene(variant, "a")
    world.variables.apply("lease", Lease(8, "n8", floor=3, release_reason="free"))
    world.run(60.0)
    assert stored(world).gen == 9
    put(world, None)
    world.start(world["a"], world.t)
    world.run(world.t + 60.0)
    assert stored(world).gen == 9
