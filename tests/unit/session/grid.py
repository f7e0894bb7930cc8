# SPDX-License-Identifier: Apache-2.0
"""A simulated world without random numbers: time is a grid, and every variation is a choice.

The times of one worker are whole numbers, those of the other lie between them. So no two events coincide, and every
order occurs. An operation takes the shortest time, or the longest that the timing conditions allow.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator
from typing import Any

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.session.effects import (
    BankTime,
    CheckKey,
    ConfirmAbsent,
    LogIn,
    NewNonce,
    Now,
    Probe,
    Read,
    Refresh,
    Sleep,
    Write,
)
from intergiro_provider.session.timings import Timings
from tests.unit.session.actors import Acquire, Use, Variant, Worker
from tests.unit.session.bank import Bank
from tests.unit.session.faults import Fault, Kind
from tests.unit.session.line import Line
from tests.unit.session.variables import Variables
from tests.unit.session.world import World

GRID = Timings(
    call=6.0,
    lease_write=2.0,
    lease_round=4.0,
    settle_lease=5.0,
    lock_check=0.0,
    critical=24.0,
    takeover=50.0,
    settle_session=9.0,
    wait=70.0,
    persist=4.0,
    store=8.0,
    repeat=2.0,
    reserve=4.0,
    poll=2.0,
    bank_pause=6.0,
)
"""Timings with the inequalities of production, in small whole numbers."""

LONG = GRID.takeover + 8.0
CALL_FAULTS: tuple[Kind, ...] = ("kill_after", "lost", "dropped", "garbled", "unsent", "busy", "limited")
STOPS = (Fault("pause", 8.0), Fault("pause", LONG), Fault("pause_after", 8.0), Fault("pause_after", LONG))
FAULTS: dict[type[Any], tuple[Fault, ...]] = {
    Write: (
        *(Fault("kill"), Fault("kill_after")),
        *(Fault("pause", 2.0), Fault("pause", LONG), Fault("pause_after", LONG)),
        *(Fault("fail", 1.0), Fault("fail_applied", 1.0, 0.0), Fault("fail_applied", 1.0, 7.0)),
        *(Fault("slow", 3.0, 7.0, first=0.0), Fault("slow", 3.0, 7.0, first=3.0)),
    ),
    Read: (Fault("missing"), Fault("fail", 1.0), Fault("pause_after", 3.0), Fault("pause_after", LONG)),
    ConfirmAbsent: (Fault("fail", 1.0), Fault("pause_after", 3.0)),
    Now: (Fault("kill"), Fault("pause", LONG), Fault("pause_after", LONG)),
    Probe: (Fault("dropped"), Fault("busy"), Fault("limited"), Fault("pause_after", LONG)),
    Refresh: (*(Fault(kind) for kind in CALL_FAULTS), *STOPS),
    LogIn: (*(Fault(kind) for kind in CALL_FAULTS), *STOPS),
    Use: (Fault("forbidden"),),
    Sleep: (),
    NewNonce: (),
    BankTime: (),
    CheckKey: (),
    Acquire: (),
}
"""The faults of each effect. A stop before an effect also covers a stop after the previous one."""

Ways = tuple[tuple[float, float], ...]
QUICK: Ways = ((0.0, 0.0),)
WRITES: Ways = ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0))
READS: Ways = ((0.0, 0.0), (0.0, 2.0))
CALLS: Ways = ((0.0, 0.0), (0.0, 6.0), (6.0, 0.0))


class Seen(Exception):
    """This state has occurred before."""


class Choices:
    """The choices of one run: the given ones, then always the first."""

    def __init__(self, given: tuple[int, ...]) -> None:
        self._made = list(given)
        self._given = len(given)
        self._open: list[tuple[int, int]] = []
        self._next = 0

    @property
    def is_replay(self) -> bool:
        """Whether given choices are left."""
        return self._next < self._given

    @property
    def made(self) -> tuple[int, ...]:
        return tuple(self._made)

    def choose(self, options: int) -> int:
        """Return one of this number of options, from 0."""
        index = self._next
        self._next += 1
        if index == len(self._made):
            self._made.append(0)
            self._open.append((index, options))
        return self._made[index]

    def alternatives(self) -> Iterator[tuple[int, ...]]:
        """Return the choices of further runs: those that differ in one choice that was not given here."""
        for index, options in self._open:
            for other in range(1, options):
                yield (*self._made[:index], other)


class _NoChance:
    """Replaces the random numbers."""

    def uniform(self, low: float, high: float) -> float:
        return 0.0

    def random(self) -> float:
        return 0.0


class _Variables(Variables):
    def __init__(self, world: World, choices: Choices, slow: tuple[str, ...]) -> None:
        super().__init__(world, 0.0)
        self._choices = choices
        self._slow = slow

    def way(self, effect: Read | Write | ConfirmAbsent) -> tuple[float, float]:
        ways = QUICK
        if effect.slot in self._slow and not isinstance(effect, ConfirmAbsent):
            ways = WRITES if isinstance(effect, Write) else READS
        return ways[self._choices.choose(len(ways))]


class _Line(Line):
    def __init__(self, world: World, bank: Bank, choices: Choices) -> None:
        super().__init__(world, bank, 0.0, 0.0)
        self._choices = choices

    def way(self, effect: Probe | Refresh | LogIn) -> tuple[float, float]:
        ways = CALLS[:2] if isinstance(effect, Probe) else CALLS
        return ways[self._choices.choose(len(ways))]


class GridWorld(World):
    """A world in which every variation is a choice. Each worker has one task, and is not restarted.

    :param faults_left: the number of faults that may still occur.
    :param slow: the Variables whose operations may be slow without a fault.
    """

    def __init__(
        self,
        choices: Choices,
        workers: list[Worker],
        bank: Bank,
        *,
        variant: Variant,
        faults_left: int,
        slow: tuple[str, ...],
    ) -> None:
        self.faults_left = faults_left
        self._choices = choices
        super().__init__(workers, bank=bank, variant=variant, faults=self._fault)
        self.timings = GRID
        self.rng = _NoChance()  # type: ignore[assignment]
        self.variables = _Variables(self, choices, slow)
        self.line = _Line(self, bank, choices)
        self._connect()

    def _fault(self, world: World, worker: Worker, effect: Any) -> Fault | None:
        options = FAULTS[type(effect)]
        if not self.faults_left or not options:
            return None
        chosen = self._choices.choose(len(options) + 1)
        if chosen == 0:
            return None
        self.faults_left -= 1
        return options[chosen - 1]

    def slept(self, effect: Sleep) -> float:
        return effect.seconds + (effect.jitter if effect.jitter and self._choices.choose(2) else 0.0)

    def kill(self, worker: Worker, restart_after: float | None = None) -> None:
        super().kill(worker, None)

    def _live(self, worker: Worker) -> Generator[Any, Any, None]:
        try:
            yield from self._task(worker)
        except IntergiroError as error:
            worker.errors.append((self.t, error))

    def ahead(self) -> list[tuple[float, Callable[..., None], tuple[Any, ...]]]:
        """Return the pending events in order: seconds from now, the action, and its arguments."""
        return [(when - self.t, what, args) for when, _, what, args in sorted(self._heap, key=lambda event: event[:2])]

    def explore(self, until: float, is_seen: Callable[[], bool]) -> None:
        """Run to the end, or to a state that has occurred before.

        :raises Seen: at such a state.
        """
        while self._heap and self._heap[0][0] <= until:
            if not self._choices.is_replay and is_seen():
                raise Seen
            self.t, _, what, args = heapq.heappop(self._heap)
            what(*args)
