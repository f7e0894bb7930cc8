# SPDX-License-Identifier: Apache-2.0
"""The faults of each effect of the protocol, and the deciders that choose when they occur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from intergiro_provider.session.effects import Read, Slot, Write

if TYPE_CHECKING:
    from tests.unit.session.actors import Worker
    from tests.unit.session.world import World

Kind = Literal[
    "kill",  # the process dies instead of the effect
    "kill_after",  # the effect is carried out, the process dies before it gets the result
    "pause",  # the process is stopped before the effect, for `seconds`
    "pause_after",  # … after the effect, before it gets the result
    "fail",  # Variable: StoreUnavailable, after `seconds`; nothing is stored
    "fail_applied",  # Variable: StoreUnavailable, but stored; `late` seconds after the start
    "slow",  # Variable write: acknowledged after `seconds`; copies land `first` and `late` seconds after the start
    "missing",  # Variable read: None, although it exists
    "lost",  # bank: carried out, no response
    "dropped",  # bank: not carried out, no response
    "unsent",  # bank: the request was certainly not sent
    "busy",  # bank: 503; `late`: its Retry-After
    "limited",  # bank: 429; `late`: its Retry-After
    "garbled",  # bank: carried out, 5xx at once
    "forbidden",  # a task's request: 401 although the token is valid
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one effect; :data:`Kind` describes the numbers."""

    kind: Kind
    seconds: float = 0.0
    late: float | None = None
    first: float | None = None


class Faults(Protocol):
    """Decides on the fault of each effect when it starts."""

    def __call__(self, world: World, worker: Worker, effect: Any) -> Fault | None: ...


def none(world: World, worker: Worker, effect: Any) -> Fault | None:
    """Return no fault."""
    return None


Matcher = Callable[[Any], bool]


def is_effect(kind: type[Any], slot: str | None = None) -> Matcher:
    """Return a condition for effects of a kind and, for reads and writes, of a slot."""

    def matches(effect: Any) -> bool:
        return type(effect) is kind and (slot is None or effect.slot == slot)

    return matches


def read(slot: str) -> Matcher:
    return is_effect(Read, slot)


def write(slot: str) -> Matcher:
    return is_effect(Write, slot)


def overwritten(slot: Slot, *documents: Any) -> Faults:
    """Return a fault: each of these is written once between a worker's write and its read."""
    left = list(documents)
    wrote = False

    def fault(world: World, worker: Worker, effect: Any) -> None:
        nonlocal wrote
        if write(slot)(effect):
            wrote = True
        elif wrote and left and read(slot)(effect):
            wrote = False
            world.variables.apply(slot, left.pop(0))

    return fault


@dataclass(slots=True)
class _Rule:
    worker: str | None
    matches: Matcher
    skip: int
    times: int
    fault: Fault


class Script:
    """Faults at chosen places: ``Script().on("a", write("lease"), Fault("kill"))``."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def on(self, worker: str | None, matches: Matcher, fault: Fault, *, nth: int = 1, times: int = 1) -> Script:
        """Add a fault to the `nth` (from 1) matching effect of this worker (None: of any), and to `times` in a row."""
        self._rules.append(_Rule(worker, matches, nth - 1, times, fault))
        return self

    def clear(self) -> None:
        """Remove all faults."""
        self._rules.clear()

    def __call__(self, world: World, worker: Worker, effect: Any) -> Fault | None:
        for rule in self._rules:
            if rule.times and rule.worker in (None, worker.name) and rule.matches(effect):
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.times -= 1
                return rule.fault
        return None

    @property
    def spent(self) -> bool:
        """Return whether every fault has occurred. Otherwise a scenario proves nothing."""
        return all(rule.times == 0 or rule.times > 1000 for rule in self._rules)
