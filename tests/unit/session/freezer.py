# SPDX-License-Identifier: Apache-2.0
"""The comparable state of a world: everything on which its future depends.

It holds the position and the variables of each generator, the stored documents, operations in progress, and what the
bank and the checks know. Times are relative to now; nonces and tokens are numbered in the order of their appearance.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from types import GeneratorType
from typing import Any

from intergiro_provider.session.documents import TokenPair
from intergiro_provider.session.holder import Holder
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.timings import Timings
from tests.unit.session.actors import Worker
from tests.unit.session.bank import EPOCH, Bank
from tests.unit.session.checks import Checks
from tests.unit.session.grid import GRID, GridWorld
from tests.unit.session.world import World

ABSOLUTE = frozenset({"began", "acked", "_started", "now", "reserved_at", "_watched_since", "since"})
"""Variables of the protocol with a monotonic time. If one is missing here, fewer states are equal."""
UNREAD = frozenset({"issued_at", "holder", "why", "writer", "connections", "detail", "key"})
"""Fields that depend on others (`writer`: see :func:`_dataclass`), or are for people only."""
NAME = re.compile(r"(?:access-|refresh-|[ab])\d+")


class Freezer:
    """Computes the state of a world once."""

    def __init__(self, world: GridWorld) -> None:
        self.world = world
        self.names: dict[str, int] = {}
        self.objects: set[int] = set()
        self.sets: list[set[Any] | frozenset[Any]] = []

    def state(self) -> int:
        """Return the state as a number. Different states have the same number with a probability of 2⁻⁶⁴."""
        world = self.world
        # Names are numbered first in pending operations and the store. A process may hold names that no longer exist.
        frozen = (
            tuple((_rounded(after), what.__name__, self.of(args)) for after, what, args in world.ahead()),
            self.of(world.variables.documents),
            tuple(self._worker(worker) for worker in world.workers),
            # The bank dates its responses in whole seconds.
            _rounded(world.t % 1.0),
            world.faults_left,
            tuple((lock, owner.name) for lock, owner in sorted(world.lock_owners.items())),
        )
        # A name in a set matters only if it also occurs elsewhere, so sets are last.
        remembered = (
            tuple(self._set(value) for value in self.sets),
            self._bank(world.bank),
            self._checks(world.checks),
        )
        # Not hash() of the tuple: hash(-1) is hash(-2). Version 2 of marshal writes equal objects in the same way.
        return hash(marshal.dumps((frozen, remembered), 2))

    def _ago(self, when: float | None) -> float | None:
        return None if when is None else _rounded(when - self.world.t)

    def _set(self, value: set[Any] | frozenset[Any]) -> tuple[Any, ...]:
        known = sorted(self.names[item] for item in value if item in self.names)
        return (*known, *sorted(item for item in value if not NAME.fullmatch(item)))

    def _bank(self, bank: Bank) -> tuple[Any, ...]:
        return (
            len(bank.logins),
            tuple(
                (family.key, family.ended, tuple(self.names.get(pair.refresh, -1) for pair in family.pairs))
                for family in bank.families
            ),
            # In the order of their issue.
            tuple(
                (self.names[token], max(0.0, _rounded(pair.born + bank.access_life - self.world.t)))
                for token, pair in bank.pairs.items()
                if token in self.names
            ),
        )

    def _checks(self, checks: Checks) -> tuple[Any, ...]:
        return (
            checks.exclusion_at_risk,
            None if checks.person_at < 0 else self._ago(checks.person_at),
            None if checks.late_at < 0 else self._ago(checks.late_at),
            tuple(sorted((self.names[token], gen) for token, gen in checks._gens.items() if token in self.names)),
            tuple(sorted(self.names[nonce] for _, nonce in checks._nonces if nonce in self.names)),
        )

    def _worker(self, worker: Worker) -> tuple[Any, ...]:
        t, hit, checks = self.world.t, worker.hit_at, self.world.checks
        return (
            worker.life,
            worker.calling,
            self._ago(worker.acked),
            self.of(worker.nonce),
            self.of(None if worker.holding is None else worker.holding.refresh),
            hit >= worker.call_started,
            hit >= worker.lease_read_at,
            hit >= worker.session_read_at,
            hit >= worker.asked_clock_at,
            self._ago(hit) if hit >= t else None,
            worker.acked is not None and worker.call_started - worker.acked >= GRID.critical,
            checks.late_at >= worker.session_read_at,
            checks.person_at < worker.session_read_at,
            self.of(worker.sent),
            self.of(worker.cache),
            self.of(worker.seen) if self.world.variant.entangled else (),
            worker.offset,
            worker.lock_lost,
            len(worker.errors),
            len(worker.successes),
            self._ago(worker.renewing_since),
            worker.paused,
            worker.hits,
            self.frames(worker.process),
        )

    def frames(self, process: Any) -> tuple[Any, ...]:
        """Return the positions and the variables of a generator and of those that it waits for."""
        frames = []
        while process is not None and getattr(process, "gi_frame", None) is not None:
            frame = process.gi_frame
            held = frame.f_locals
            variables = tuple([(name, self.of(held[name], name)) for name in sorted(held)])
            frames.append((frame.f_code.co_qualname, frame.f_lasti, variables))
            process = process.gi_yieldfrom
        return tuple(frames)

    def of(self, value: Any, name: str = "") -> Any:
        """Return the comparable form of a value, for a variable of this name."""
        kind = type(value)
        form = FORMS.get(kind)
        if form is None:
            form = FORMS[kind] = _form(kind)
        return form(self, value, name)


def _rounded(number: float) -> float:
    # Avoid -0.0.
    return round(number, 3) + 0.0


Form = Callable[[Freezer, Any, str], Any]


def _itself(freezer: Freezer, value: Any, name: str) -> Any:
    return value


def _kind_only(freezer: Freezer, value: Any, name: str) -> str:
    return type(value).__name__


def _text(freezer: Freezer, value: str, name: str) -> Any:
    return freezer.names.setdefault(value, len(freezer.names)) if NAME.fullmatch(value) else value


def _number(freezer: Freezer, value: float, name: str) -> float:
    if value > EPOCH / 2:
        return _rounded(value - EPOCH - freezer.world.t)
    return _rounded(value - freezer.world.t if name in ABSOLUTE else value)


def _mapping(freezer: Freezer, value: dict[str, Any], name: str) -> Any:
    return tuple([(freezer.of(key), freezer.of(value[key], key)) for key in sorted(value)])


def _sequence(freezer: Freezer, value: Any, name: str) -> Any:
    return tuple([freezer.of(item) for item in value])


def _later(freezer: Freezer, value: Any, name: str) -> Any:
    freezer.sets.append(value)
    return None


def _generator(freezer: Freezer, value: Any, name: str) -> Any:
    # A generator that a mutant drives with send(), and not with `yield from`.
    return freezer.frames(value)


def _object(kind: type[Any]) -> Form:
    names = tuple(f.name for f in fields(kind)) if is_dataclass(kind) else None

    def form(freezer: Freezer, value: Any, name: str) -> Any:
        if id(value) in freezer.objects:
            return kind.__name__
        freezer.objects.add(id(value))
        return tuple([(n, freezer.of(getattr(value, n), n)) for n in names or sorted(vars(value))])

    return form


def _dataclass(kind: type[Any]) -> Form:
    names = tuple(f.name for f in fields(kind) if f.name not in UNREAD)

    def form(freezer: Freezer, value: Any, name: str) -> Any:
        return (kind.__name__, *[freezer.of(getattr(value, n), n) for n in names])

    if kind is not TokenPair:
        return form

    def session(freezer: Freezer, value: TokenPair, name: str) -> Any:
        # Sessions are compared as a whole, and a rewritten one differs only in its writer.
        writer = freezer.names.setdefault(f"by {value.writer}", len(freezer.names)) if " " in value.writer else ""
        return (*form(freezer, value, name), writer)

    return session


def _form(kind: type[Any]) -> Form:
    if issubclass(kind, Enum):
        return lambda freezer, value, name: value.value
    if issubclass(kind, GeneratorType):
        return _generator
    if issubclass(kind, Worker):
        return lambda freezer, value, name: value.name
    if issubclass(kind, World | Timings):
        return _kind_only
    if issubclass(kind, Renewal | Holder):
        return _object(kind)
    return _dataclass(kind) if is_dataclass(kind) else _kind_only


FORMS: dict[type[Any], Form] = {
    type(None): _itself,
    bool: _itself,
    int: _itself,
    str: _text,
    float: _number,
    dict: _mapping,
    set: _later,
    frozenset: _later,
    list: _sequence,
    tuple: _sequence,
}
"""The function that freezes each type. Further types are added when they first occur."""
