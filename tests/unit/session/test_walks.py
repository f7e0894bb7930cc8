# SPDX-License-Identifier: Apache-2.0
"""The guarantees in thousands of random worlds: two to four workers, four kinds of bank, up to three faults.

A failing walk names its seed; ``walk(seed, faults=n, trace=True)`` prints its trace.
"""

from __future__ import annotations

import pytest

from tests.unit.session.bank import RULES
from tests.unit.session.checks import Violation
from tests.unit.session.walks import build, walk


@pytest.mark.parametrize("faults", [1, 2, 3])
def test_guarantees_hold_whatever_goes_wrong(faults: int) -> None:
    for seed in range(600):
        walk(seed, faults=faults)


@pytest.mark.parametrize("rule", RULES)
def test_without_a_fault_no_refresh_is_refused_but_the_one_that_tells_the_end(rule: str) -> None:
    for seed in range(RULES.index(rule), 480, len(RULES)):  # type: ignore[arg-type]
        _, aimed = build(seed, faults=0)
        world = walk(seed, faults=0)
        bank = world.bank
        ended = sum(bank.is_over(family, world.t) for family in bank.families)
        # A restored session holds a token that was used before.
        restored = aimed.start == "restored"
        assert bank.early == 0
        assert bank.reused <= restored
        assert bank.refused_ended <= ended
        # One login for each ended session, one without a session, and one for a restored session.
        assert len(bank.logins) <= ended + (aimed.start in ("cold", "restored", "deleted", "deleted first"))


def test_same_seed_is_the_same_walk() -> None:
    one, other = (walk(7, faults=2, trace=True).story() for _ in range(2))
    assert one == other
    assert len(one) > 1000


@pytest.mark.xfail(raises=Violation, strict=True, reason="two refreshes at once: see docs/verification.md")
@pytest.mark.parametrize(("seed", "faults"), [(161257, 1), (111804, 2), (111322, 4)])
def test_known_violations(seed: int, faults: int) -> None:
    """In the first, a late write of an own lease hides another's. In the others, a paused worker finds no session."""
    walk(seed, faults=faults)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("faults", [0, 1, 2, 3, 4])
def test_guarantees_hold_in_many_more_walks(faults: int) -> None:
    for seed in range(100_000, 200_000):
        walk(seed, faults=faults)
