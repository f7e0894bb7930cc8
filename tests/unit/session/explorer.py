# SPDX-License-Identifier: Apache-2.0
"""Every run of a small world: all orders of two workers on a grid of time, with a fault at every possible point.

The production generators cannot be copied, so a state is reached by running the world again with the same choices. A
run ends at a state that has been seen before.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Literal

from intergiro_provider.session.documents import Lease
from intergiro_provider.session.effects import Renewer
from tests.unit.session.actors import Variant, Worker
from tests.unit.session.bank import Bank, Rule
from tests.unit.session.checks import Violation
from tests.unit.session.freezer import Freezer
from tests.unit.session.grid import GRID, Choices, GridWorld, Seen
from tests.unit.session.scene import KEY, put, with_session

Start = Literal["cold", "expired", "ended", "deleted", "deleted first"]

ON_THE_GRID = Variant(timings=GRID)
LIFE = 1000.0
HORIZON = 400.0


@dataclass(slots=True)
class Explored:
    """The result of an exploration.

    :param logins: the numbers of logins that occurred in a run.
    :param violation: the violated guarantee, with its trace in `story`; None: all guarantees hold.
    """

    states: int = 0
    runs: int = 0
    seconds: float = 0.0
    logins: set[int] = field(default_factory=set)
    violation: str | None = None
    story: str = ""


def explore(
    start: Start,
    rule: Rule,
    *,
    faults: int,
    variant: Variant = ON_THE_GRID,
    locks: tuple[str | None, str | None] = (None, None),
    begins: tuple[float, ...] = (0.5, 2.5, 5.5, 8.5),
    slow: tuple[str, ...] = ("lease",),
    most: int = 10_000_000,
) -> Explored:
    """Explore every run of two workers and one renewal, from this start.

    :param faults: the largest number of faults in one run.
    :param begins: the times at which the second worker may begin; the first begins at 0.
    :param slow: the Variables whose operations may be slow without a fault.
    :param most: the number of states after which to stop.
    """
    result, seen, began = Explored(), set[int](), time.monotonic()
    todo: list[tuple[int, ...]] = [()]

    def world_of(choices: Choices) -> GridWorld:
        workers = [
            Worker("a", Renewer(key=KEY, lock=locks[0], name="a")),
            Worker("b", Renewer(key=KEY, lock=locks[1], name="b"), begins=begins[choices.choose(len(begins))]),
        ]
        world = GridWorld(choices, workers, Bank(rule, LIFE), variant=variant, faults_left=faults, slow=slow)
        _prepare(world, start, locks[0])
        return world

    while todo and len(seen) < most:
        choices = Choices(todo.pop())
        world = world_of(choices)
        result.runs += 1

        def is_seen(world: GridWorld = world) -> bool:
            known = len(seen)
            seen.add(Freezer(world).state())
            return len(seen) == known

        try:
            world.explore(HORIZON, is_seen)
            result.logins.add(len(world.bank.logins))
            _all_have_ended(world)
        except Seen:
            pass
        except Violation as violation:
            result.violation = str(violation)
            result.story = _tell(world_of(Choices(choices.made)))
            break
        todo.extend(choices.alternatives())
    result.states, result.seconds = len(seen), time.monotonic() - began
    return result


def _tell(world: GridWorld) -> str:
    world.trace = []
    with contextlib.suppress(Violation):
        world.explore(HORIZON, lambda: False)
    return world.story()


def _all_have_ended(world: GridWorld) -> None:
    for worker in world.workers:
        if worker.process is not None:
            raise Violation(f"progress: {worker.name} is still waiting at {world.t:.0f} s")


def _prepare(world: GridWorld, start: Start, lock: str | None) -> None:
    if start != "cold":
        with_session(world, age=LIFE + 1.0, lock=lock)
    if start == "ended":
        world.bank.end_sessions()
    if start.startswith("deleted"):
        put(world, None)
    if start == "deleted first":
        # As after the first login. Otherwise the lease is the one under which the deleted pair was refreshed.
        world.variables.apply("lease", Lease(0, "n1", release_reason="done"))
    world.checks.person_at = -1.0
