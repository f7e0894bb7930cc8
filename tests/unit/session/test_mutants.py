# SPDX-License-Identifier: Apache-2.0
"""Every rule of the protocol is needed: without it a scenario fails, and most random walks detect it, too."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.unit.session.actors import PRODUCTION
from tests.unit.session.checks import Violation
from tests.unit.session.mutants import MUTANTS, Mutant
from tests.unit.session.walks import walk

FEW, MANY = 30, 20_000
"""The number of walks with each mutant: in ordinary test runs, and in exhaustive ones."""

NARROW = {
    "own slow write entered on",
    "late copies not waited out",
    "settle_lease below lease_round",
    "no settling of the lease",
    "lease not read back",
    "release reason ignored",
    "backwards not noticed",
    "backwards without a second look",
    "only the refused session tried",
    "lock released before late copies have come",
    "429 is an error",
}
"""Mutants that the few random faults of one walk do not reveal."""

each = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.variant.name)


def fails(mutant: Mutant) -> bool:
    """Return whether the scenario of this mutant fails with the mutant."""
    module, name = mutant.scenario.split(".")
    scenario = getattr(import_module(f"tests.unit.session.test_{module}"), name)
    try:
        scenario(mutant.variant, **mutant.parameters)
    except AssertionError:
        return True
    return False


def test_narrow_ones_are_mutants() -> None:
    assert {mutant.variant.name for mutant in MUTANTS} >= NARROW


def walks_until_noticed(mutant: Mutant, most: int) -> int | None:
    for seed in range(most):
        try:
            walk(seed, mutant.variant)
        except Violation:
            return seed + 1
    return None


@each
def test_scenario_notices(mutant: Mutant, mutants_noticed: dict[str, str]) -> None:
    module, name = mutant.scenario.split(".")
    production = getattr(import_module(f"tests.unit.session.test_{module}"), name)
    production(PRODUCTION, **mutant.parameters)
    assert fails(mutant)
    after = walks_until_noticed(mutant, FEW)
    walks = f"{after:6d} walks" if after is not None else f"  > {FEW} walks"
    mutants_noticed[mutant.variant.name] = f"{walks}; {name}"


@pytest.mark.exhaustive
@each
def test_walks_notice(mutant: Mutant, mutants_noticed: dict[str, str]) -> None:
    if mutant.variant.name in NARROW:
        pytest.skip("noticed by its scenario only")
    after = walks_until_noticed(mutant, MANY)
    name = mutant.scenario.split(".")[1]
    mutants_noticed[mutant.variant.name] = f"{after or f'> {MANY}':>6} walks; {name}"
    assert after is not None
