# SPDX-License-Identifier: Apache-2.0
"""Each rule of the renewal, in a world of one to three workers, with at most one thing going wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroAuthError,
    LoginBudgetExhausted,
    StoreUnavailable,
)
from intergiro_provider.session.documents import Lease, Login, LoginHistory, TokenPair
from intergiro_provider.session.effects import (
    Effect,
    LogIn,
    Probe,
    Refresh,
    Renewed,
)
from tests.unit.session.actors import Use, Variant
from tests.unit.session.bank import EPOCH, RULES, Bank, Rule
from tests.unit.session.faults import Fault, Script, is_effect, overwritten
from tests.unit.session.scene import (
    KEY,
    LIFE,
    TIMINGS,
    calls,
    end_sessions,
    hows,
    lease_of,
    put,
    scene,
    stored,
    with_session,
)

# Nothing goes wrong.


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
    # Three lives of 59 minutes, each with three refreshes and the one that is refused.
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
    assert lease_of(world).verdict == "free"


def test_lease_is_free_at_once_after_a_permission(variant: Variant) -> None:
    faults = Script().on("a", is_effect(Use), Fault("forbidden"), times=2)
    world = scene(variant, "ab", faults=faults, gap=10.0)
    with_session(world, age=LIFE - 9.0)
    world.run(30.0)
    assert calls(world) == ["a:Probe", "b:Probe", "b:Refresh"]


# What the bank may answer to a refresh.


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
    assert lease_of(world).verdict == "bank"


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
    # Nobody has asked again while that holds, and nobody has logged in instead.
    assert calls(world) == begun
    world.run(120.0)
    assert world["a"].successes
    assert world["b"].successes


def test_bank_that_does_not_say_when_is_left_alone_for_a_while(variant: Variant) -> None:
    world = scene(variant, "ab", faults=Script().on("a", is_effect(Refresh), Fault("busy")), gap=4.0, patience=4.0)
    with_session(world)
    world.run(TIMINGS.bank_verdict)
    assert calls(world) == ["a:Probe", "a:Refresh"]
    world.run(TIMINGS.bank_verdict + 20.0)
    assert calls(world)[2:4] in (["a:Probe", "a:Refresh"], ["b:Probe", "b:Refresh"])


@pytest.mark.parametrize("effect", [Probe, Refresh])
def test_bank_that_limits_requests_is_waited_for_by_everybody(variant: Variant, effect: type[Effect]) -> None:
    faults = Script().on(None, is_effect(effect), Fault("limited", late=60.0))
    world = scene(variant, "ab", faults=faults)
    # The deadline counts from the start of a renewal, and not of the process.
    with_session(world, age=LIFE - TIMINGS.wait)
    world.run(TIMINGS.wait + 60.0)
    assert lease_of(world).verdict == "limited"
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
    assert error.retry_after == TIMINGS.refused_memo
    assert lease_of(world).verdict_until <= EPOCH + 10.0 + TIMINGS.refused_memo


def test_connection_that_joins_is_named_at_the_next_write(variant: Variant) -> None:
    world = scene(variant, "a")
    world["a"].member = replace(world["a"].member, connection="joins")
    with_session(world)
    put(world, replace(stored(world), connections=("is there",)))
    world.run(30.0)
    assert (stored(world).gen, stored(world).connections) == (6, ("is there", "joins"))


# Login.


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
    assert all("(it answered 400)" in str(worker.error) for worker in world.workers)
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
    # The refresh token of the dead session was presented once, not by every failing task.
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
    assert lease_of(world).verdict == "budget"
    assert isinstance(world["a"].error, LoginBudgetExhausted)
    world["a"].member = replace(world["a"].member, max_logins=4)
    world.run(300.0)
    assert len(world.bank.logins) == 1
    assert world["a"].successes


@pytest.mark.parametrize(("age", "waits"), [(30.0, True), (300.0, False)])
@pytest.mark.parametrize("renewed", [False, True])
def test_deleted_session_is_a_login_within_seconds(variant: Variant, renewed: bool, age: float, waits: bool) -> None:
    """Nobody is at work: the first login has released its lease, and any lease ends by the bank's clock."""
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
    world.variables.apply("lease", Lease(8, "n8", floor=3, verdict="free"))
    world.run(60.0)
    assert stored(world).gen == 9
    put(world, None)
    world.start(world["a"], world.t)
    world.run(world.t + 60.0)
    assert stored(world).gen == 9


# Somebody else's lease.


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
        # An owner that takes the lease again and again without getting anywhere.
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


@pytest.mark.parametrize("others", [[None, None], [Lease(5, nonce, verdict="free") for nonce in ("x", "y", "z")]])
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
    # Nobody has to wait for the end of its lease.
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
