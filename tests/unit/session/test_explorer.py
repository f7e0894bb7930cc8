# SPDX-License-Identifier: Apache-2.0
"""The guarantees in every run of two workers and one renewal, within the bounds that each test states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.session.bank import RULES, Rule
from tests.unit.session.explorer import Explored, Start, explore
from tests.unit.session.grid import GRID
from tests.unit.session.mutants import MUTANTS

BOUNDED: tuple[Start, ...] = ("cold", "expired", "deleted", "deleted first")
"""With a slow lease, an ended session has too many runs to explore all."""
SOON = (0.5,)
"""The start of the second worker, in tests with a single start."""
STARTS: tuple[Start, ...] = ("cold", "expired", "ended", "deleted", "deleted first")


def exhaustive(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.exhaustive(pytest.mark.timeout(3600)(test))


def report(what: str, explored: Explored) -> None:
    print(
        f"{what}: {explored.states} states, {explored.runs} runs, {explored.seconds:.0f} s; "
        f"logins in one run: {min(explored.logins)} to {max(explored.logins)}"
    )
    assert explored.violation is None, f"{explored.violation}\n{explored.story}"


def test_every_run_of_two_quick_workers() -> None:
    explored = explore("expired", "strict", faults=0, slow=(), begins=(0.5, 2.5))
    report("expired, no fault", explored)
    assert explored.logins == {0}
    assert explored.states > 500


@exhaustive
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "strict"])
@pytest.mark.parametrize("start", ["expired", "cold"])
def test_every_run_with_one_fault_at_another_bank(start: Start, rule: Rule) -> None:
    report(f"{start}, {rule}, one fault", explore(start, rule, faults=1, slow=(), begins=SOON))


@exhaustive
@pytest.mark.parametrize("start", STARTS)
def test_every_run_under_a_distributed_lock(start: Start) -> None:
    explored = explore(start, "strict", faults=1, slow=(), begins=SOON, locks=("L", "L"))
    report(f"{start}, one fault, distributed lock", explored)


@exhaustive
@pytest.mark.parametrize("locks", [("L", None), (None, "L")])
@pytest.mark.parametrize("faults", [0, 1])
def test_every_run_where_one_of_two_has_a_lock(locks: tuple[str | None, str | None], faults: int) -> None:
    """Before the first session, which stores the lock under which it is renewed."""
    slow = () if faults else ("lease",)
    explored = explore("cold", "strict", faults=faults, slow=slow, begins=SOON, locks=locks)
    report(f"cold, {faults} faults, locks {locks}", explored)


@exhaustive
@pytest.mark.parametrize("start", STARTS)
def test_every_run_with_one_fault(start: Start) -> None:
    report(f"{start}, strict, one fault", explore(start, "strict", faults=1, slow=(), begins=SOON))


@exhaustive
def test_every_run_without_a_fault_after_the_session_has_ended() -> None:
    explored = explore("ended", "strict", faults=0, slow=(), begins=SOON)
    report("ended, no fault", explored)
    assert explored.logins == {1}


@exhaustive
def test_every_run_with_one_fault_and_four_beginnings() -> None:
    report("expired, strict, one fault, four beginnings", explore("expired", "strict", faults=1, slow=()))


@exhaustive
@pytest.mark.parametrize("start", BOUNDED)
def test_every_run_without_a_fault_but_a_slow_lease(start: Start) -> None:
    explored = explore(start, "strict", faults=0, begins=SOON)
    report(f"{start}, no fault, slow lease", explored)
    assert explored.logins == {0 if start == "expired" else 1}


def test_without_a_lease_there_are_runs_of_two_logins() -> None:
    """The explorer finds the violation of a broken protocol, which the production protocol does not have."""
    broken = next(mutant.variant for mutant in MUTANTS if mutant.variant.name == "no lease at all")
    bounds: dict[str, Any] = {"faults": 0, "slow": (), "begins": (0.5, 2.5)}

    assert explore("cold", "strict", variant=replace(broken, timings=GRID), **bounds).logins == {1, 2}
    assert explore("cold", "strict", **bounds).logins == {1}
