# SPDX-License-Identifier: Apache-2.0
"""The bank's responses to a probe, a refresh and a login, in a world of one to three workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
)
from intergiro_provider.session.effects import (
    Effect,
    LogIn,
    Probe,
    Refresh,
)
from tests.unit.session.actors import Variant
from tests.unit.session.bank import EPOCH, Bank
from tests.unit.session.faults import Fault, Script, is_effect
from tests.unit.session.scene import (
    LIFE,
    TIMINGS,
    calls,
    hows,
    lease_of,
    put,
    scene,
    stored,
    with_session,
)


def test_refresh_that_was_not_sent_is_sent_again(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(Refresh), Fault("unsent"), times=3))
    with_session(world)
    world.run(60.0)
    assert calls(world) == ["a:Probe"] + ["a:Refresh"] * 4
    assert hows(world)[-1] == "a:refreshed"


def test_refresh_that_can_never_be_sent_ends_within_the_critical_section(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(Refresh), Fault("unsent"), times=1000))
    with_session(world)
    world.run(90.0)
    assert isinstance(world["a"].error, BankUnavailable)
    assert world.bank.logins == []
    assert lease_of(world).release_reason == "bank"


@pytest.mark.parametrize("kind", ["lost", "dropped", "garbled"])
def test_unknown_outcome_is_repeated_once(variant: Variant, kind: str) -> None:
    fault = Fault(kind)  # type: ignore[arg-type]
    world = scene(variant, "a", faults=Script().on("a", is_effect(Refresh), fault))
    with_session(world)
    world.run(100.0)
    # Not carried out: the second one works. Carried out: it is refused, and after settling one login is due.
    expected = ["a:Probe", "a:Refresh", "a:Refresh"] + ([] if kind == "dropped" else ["a:LogIn"])
    assert calls(world) == expected
    assert world["a"].successes


def test_lost_answer_costs_nothing_where_the_old_token_still_works(variant: Variant) -> None:
    world = scene(variant, "a", bank=Bank("lenient", LIFE), faults=Script().on("a", is_effect(Refresh), Fault("lost")))
    with_session(world)
    world.run(60.0)
    assert calls(world) == ["a:Probe", "a:Refresh", "a:Refresh"]


def test_login_after_an_unknown_outcome_waits_for_a_late_store(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(Refresh), Fault("garbled")))
    with_session(world)
    world.run(100.0)
    trace = world.trace or []
    refused = max(t for t, _, what in trace if what.startswith("Refresh"))
    login = next(t for t, _, what in trace if what.startswith("LogIn"))
    assert login - refused >= TIMINGS.settle_session


def test_unknown_twice_is_an_error_and_no_login(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(Refresh), Fault("dropped"), times=2))
    with_session(world)
    world.run(50.0)
    assert isinstance(world["a"].error, BankUnavailable)
    assert world.bank.logins == []
    assert calls(world) == ["a:Probe", "a:Refresh", "a:Refresh"]


@pytest.mark.parametrize("effect", [Probe, Refresh, LogIn])
def test_bank_that_is_busy_is_an_error_for_everybody(variant: Variant, effect: type[Effect]) -> None:
    faults = Script().on("a", is_effect(effect), Fault("busy", late=60.0))
    world = scene(variant, "ab", faults=faults, gap=8.0)
    if effect is not LogIn:
        with_session(world)
    world.run(10.0)
    error = world["a"].error
    assert isinstance(error, BankUnavailable)
    assert error.retry_after == 60.0
    begun = calls(world)
    world.run(50.0)
    assert isinstance(world["b"].error, BankUnavailable)
    # In this time no worker has sent another request or logged in.
    assert calls(world) == begun
    world.run(120.0)
    assert world["a"].successes
    assert world["b"].successes


def test_bank_that_does_not_say_when_is_left_alone_for_a_while(variant: Variant) -> None:
    world = scene(variant, "ab", faults=Script().on("a", is_effect(Refresh), Fault("busy")), gap=4.0, patience=4.0)
    with_session(world)
    world.run(TIMINGS.bank_pause)
    assert calls(world) == ["a:Probe", "a:Refresh"]
    world.run(TIMINGS.bank_pause + 20.0)
    assert calls(world)[2:4] in (["a:Probe", "a:Refresh"], ["b:Probe", "b:Refresh"])


@pytest.mark.parametrize("effect", [Probe, Refresh])
def test_bank_that_limits_requests_is_waited_for_by_everybody(variant: Variant, effect: type[Effect]) -> None:
    faults = Script().on(None, is_effect(effect), Fault("limited", late=60.0))
    world = scene(variant, "ab", faults=faults)
    # The deadline counts from the start of a renewal, not of the process.
    with_session(world, age=LIFE - TIMINGS.wait)
    world.run(TIMINGS.wait + 60.0)
    assert lease_of(world).release_reason == "limited"
    begun = calls(world)
    assert len({call[0] for call in begun}) == 1
    world.run(TIMINGS.wait + 120.0)
    assert [call.split(":")[1] for call in calls(world)[len(begun) :]] == ["Probe", "Refresh"]
    assert world.bank.logins == []
    assert not any(worker.errors for worker in world.workers)


def test_bank_that_limits_requests_without_an_end(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Probe), Fault("limited"), times=1000)
    world = scene(variant, "a", faults=faults)
    with_session(world)
    world.run(TIMINGS.wait + 30.0)
    assert isinstance(world["a"].error, BankUnavailable)
    assert "429" in str(world["a"].error)
    assert set(calls(world)) == {"a:Probe"}


@pytest.mark.parametrize(("times", "late"), [(1, TIMINGS.wait + 100.0), (2, TIMINGS.wait - 100.0)])
def test_bank_that_limits_requests_for_longer_than_the_deadline(variant: Variant, times: int, late: float) -> None:
    faults = Script().on("a", is_effect(Probe), Fault("limited", late=late), times=times)
    world = scene(variant, "a", faults=faults)
    with_session(world)
    world.run((times - 1) * late + 20.0)
    error = world["a"].error
    assert isinstance(error, BankUnavailable)
    assert error.retry_after == pytest.approx(late, abs=10.0)


@pytest.mark.parametrize("effect", [Probe, Refresh, LogIn])
def test_mistaken_retry_after_does_not_stop_tasks_for_ever(variant: Variant, effect: type[Effect]) -> None:
    world = scene(variant, "a", faults=Script().on("a", is_effect(effect), Fault("busy", late=1e6)))
    if effect is not LogIn:
        with_session(world)
    world.run(10.0)
    error = world["a"].error
    assert isinstance(error, BankUnavailable)
    assert error.retry_after == TIMINGS.refused_pause
    assert lease_of(world).blocked_until <= EPOCH + 10.0 + TIMINGS.refused_pause


def test_connection_that_joins_is_named_at_the_next_write(variant: Variant) -> None:
    world = scene(variant, "a")
    world["a"].member = replace(world["a"].member, connection="joins")
    with_session(world)
    put(world, replace(stored(world), connections=("is there",)))
    world.run(30.0)
    assert (stored(world).gen, stored(world).connections) == (6, ("is there", "joins"))
