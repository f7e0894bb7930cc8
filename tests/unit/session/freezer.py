# SPDX-License-Identifier: Apache-2.0
"""What makes the state of a world: everything that its future depends on, in a form that can be compared.

Where each generator stands and what its variables hold, what is stored, what is under way, what the bank knows and
what the checks remember; times relative to now, and names (nonces, tokens) by the order in which they appear.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any

from intergiro_provider.session.effects import Member
from intergiro_provider.session.holder import Holder
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.timings import Timings
from tests.unit.session.actors import Worker
from tests.unit.session.bank import EPOCH, Bank
from tests.unit.session.grid import GRID, GridWorld
from tests.unit.session.world import World

ABSOLUTE = frozenset({"began", "acked", "started", "now", "reserved_at", "_watched_since", "since"})
"""Variables of the protocol that hold a monotonic time; where one is missing here, fewer states are found equal."""
UNREAD = frozenset({"login_at", "writer", "owner", "why"})
"""Fields that no decision is based on."""
NAME = re.compile(r"(?:access-|refresh-|[ab])\d+")


class Freezer:
    """Takes the state of a world, once."""

    def __init__(self, world: GridWorld) -> None:
        self._world = world
        self._names: dict[str, int] = {}
        self._objects: set[int] = set()

    def state(self) -> int:
        world = self._world
        # What lies ahead and what is stored names things first: a process may remember names that are gone for good.
        ahead = [(round(after, 3), what.__name__, self.of(args)) for after, what, args in world.ahead()]
        documents = self.of(world.variables.documents)
        workers = [self._worker(worker) for worker in world.workers]
        late = world.checks.late_at
        return hash(
            (
                tuple(ahead),
                documents,
                tuple(workers),
                self._bank(world.bank),
                world.faults_left,
                world.checks.exclusion_at_risk,
                world.checks.person_at,
                None if late < 0 else self._ago(late),
            )
        )

    def _ago(self, when: float | None) -> float | None:
        return None if when is None else round(when - self._world.t, 3)

    def _bank(self, bank: Bank) -> tuple[Any, ...]:
        t = self._world.t
        return (
            len(bank.logins),
            tuple(
                (family.ended, tuple(self._names.get(pair.refresh, -1) for pair in family.pairs))
                for family in bank.families
            ),
            tuple(
                (self._names[token], max(0.0, round(pair.born + bank.access_life - t, 3)))
                for token, pair in bank.pairs.items()
                if token in self._names
            ),
        )

    def _worker(self, worker: Worker) -> tuple[Any, ...]:
        t, hit = self._world.t, worker.hit_at
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
            self._ago(hit) if hit > t else None,
            worker.acked is not None and worker.call_started - worker.acked >= GRID.critical,
            self._world.checks.late_at >= worker.session_read_at,
            self.of(worker.sent),
            self.of(worker.cache),
            worker.offset,
            len(worker.errors),
            len(worker.successes),
            self._ago(worker.renewing_since),
            worker.paused,
            worker.hits,
            self._frames(worker.process),
        )

    def _frames(self, process: Any) -> tuple[Any, ...]:
        frames = []
        while process is not None and getattr(process, "gi_frame", None) is not None:
            frame = process.gi_frame
            variables = tuple((name, self.of(value, name)) for name, value in sorted(frame.f_locals.items()))
            frames.append((frame.f_code.co_name, frame.f_lasti, variables))
            process = process.gi_yieldfrom
        return tuple(frames)

    def of(self, value: Any, name: str = "") -> Any:
        """The comparable form of a value, which a variable of this name holds."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, str):
            return self._names.setdefault(value, len(self._names)) if NAME.fullmatch(value) else value
        if isinstance(value, float):
            if value > EPOCH / 2:
                return round(value - EPOCH - self._world.t, 3)
            return round(value - self._world.t, 3) if name in ABSOLUTE else round(value, 3)
        if isinstance(value, dict):
            return tuple((self.of(key), self.of(item, str(key))) for key, item in sorted(value.items()))
        if isinstance(value, set | frozenset):
            # Only what is named elsewhere can ever be met again.
            return tuple(sorted(self._names[item] for item in value if item in self._names))
        if isinstance(value, list | tuple):
            return tuple(self.of(item) for item in value)
        if isinstance(value, World | Worker | Timings | Member | type):
            return getattr(value, "name", "")
        if isinstance(value, Renewal | Holder):
            return self._object(value)
        if is_dataclass(value):
            return (
                type(value).__name__,
                *(self.of(getattr(value, f.name), f.name) for f in fields(value) if f.name not in UNREAD),
            )
        return type(value).__name__

    def _object(self, value: Renewal | Holder) -> Any:
        if id(value) in self._objects:
            return type(value).__name__
        self._objects.add(id(value))
        names = [f.name for f in fields(value)] if is_dataclass(value) else sorted(vars(value))
        return tuple((name, self.of(getattr(value, name), name)) for name in names)
