# SPDX-License-Identifier: Apache-2.0
"""The guarantees in every run of two workers and one renewal, within the bounds that each test states."""

from __future__ import annotations

import pytest

from tests.unit.session.bank import RULES, Rule
from tests.unit.session.explorer import Explored, Start, explore

STARTS: tuple[Start, ...] = ("cold", "expired", "ended", "foreign")


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


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", STARTS)
def test_every_run_without_a_fault(start: Start) -> None:
    explored = explore(start, "strict", faults=0)
    report(f"{start}, no fault, slow lease", explored)
    assert explored.logins == {0 if start == "expired" else 1}


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("start", STARTS)
def test_every_run_with_one_fault(start: Start, rule: Rule) -> None:
    report(f"{start}, {rule}, one fault", explore(start, rule, faults=1, slow=()))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", STARTS)
def test_every_run_with_one_fault_and_a_slow_lease(start: Start) -> None:
    report(f"{start}, one fault, slow lease", explore(start, "strict", faults=1, begins=(0.5,)))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("start", STARTS)
def test_every_run_under_a_strict_lock(start: Start) -> None:
    report(f"{start}, one fault, strict lock", explore(start, "strict", faults=1, slow=(), locks=("L", "L")))
