# SPDX-License-Identifier: Apache-2.0
"""The Variable store of a simulated world: slow, and sometimes with wrong results."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import Lease
from intergiro_provider.session.effects import ConfirmAbsent, Read, Slot, Write
from tests.unit.session.faults import Fault

if TYPE_CHECKING:
    from tests.unit.session.actors import Worker
    from tests.unit.session.world import World

Mode = Literal["up", "down", "readonly", "blind"]


class Variables:
    """Three documents, with the faults of reads and writes.

    Every operation takes effect between its start and its end. A write with a slow acknowledgement can take effect a
    second time, because Airflow's client repeats it.

    :param leg: the longest half of an operation without a fault, in seconds.
    """

    def __init__(self, world: World, leg: float) -> None:
        self.documents: dict[str, Any] = {"session": None, "lease": None, "logins": None}
        self.shadow: dict[str, Any] = {}
        self.mode: Mode = "up"  # down: all fails; readonly: writes fail; blind: reads find nothing, the rest fails
        self._world = world
        self._leg = leg

    def way(self, effect: Read | Write | ConfirmAbsent) -> tuple[float, float]:
        """Return the seconds until an operation takes effect, and from then until its result."""
        rng = self._world.rng
        return self._leg * rng.uniform(0.1, 1.0), self._leg * rng.uniform(0.1, 1.0)

    def read(self, worker: Worker, effect: Read | ConfirmAbsent, fault: Fault | None) -> None:
        world = self._world
        if effect.slot == "lease":
            worker.lease_read_at = world.t
        elif effect.slot == "session":
            worker.session_read_at = world.t
        if fault is not None and fault.kind in ("fail", "fail_applied", "slow"):
            self._fail(worker, fault.seconds)
            return
        there, back = self.way(effect)
        world.at(world.t + there, self._serve, worker, worker.life, effect, back, fault)

    def _serve(self, worker: Worker, life: int, effect: Read | ConfirmAbsent, back: float, fault: Fault | None) -> None:
        world = self._world
        if worker.life != life:
            return
        if world.trace is not None:
            world.note(worker.name, f"{type(effect).__name__} {effect.slot}")
        blind = self.mode == "blind"
        if self.mode == "down" or (blind and type(effect) is ConfirmAbsent):
            self._fail(worker, world.rng.uniform(0.1, 5.0))
            return
        document = self.shadow.get(effect.slot) or self.documents[effect.slot]
        if type(effect) is ConfirmAbsent:
            world.deliver(worker, fault, back, document is None)
            return
        if blind or (fault is not None and fault.kind == "missing"):
            document = None
        if document is not None:
            document = replace(document)  # each read decodes it again
        worker.seen[effect.slot] = document
        if (other := world.variant.entangled.get(effect.slot)) is not None:
            worker.seen[other] = self.documents[other]
        world.deliver(worker, fault, back, document)

    def write(self, worker: Worker, effect: Write, fault: Fault | None) -> None:
        world = self._world
        if worker.lock_lost and effect.slot == "lease":
            # The driver checks the distributed lock before each lease write and each bank call.
            self._fail(worker, 0.01)
            return
        kind = fault.kind if fault is not None else ""
        seconds, late = (fault.seconds, fault.late) if fault is not None else (0.0, None)
        there, back = self.way(effect)
        took, landings = there + back, [world.t + there]
        if kind == "slow":
            # The first copy takes effect at some time before the acknowledgement.
            took = seconds
            first = seconds * world.rng.random() if fault is None or fault.first is None else fault.first
            landings = [world.t + first] + ([] if late is None else [world.t + late])
        elif kind == "fail_applied" and late is not None:
            landings = [world.t + late]
        if kind == "fail" or self.mode != "up":
            landings = []
        failed = kind in ("fail", "fail_applied") or not landings
        heard = world.t + seconds if failed else math.inf
        worker.seen[effect.slot] = effect.document
        for number, when in enumerate(landings):
            self._land(when, worker, effect, copy=number > 0 or when > heard)
        if failed:
            self._fail(worker, seconds or world.rng.uniform(0.1, 5.0))
            return
        if kind == "kill_after":
            world.at(landings[0] + 0.0001, world.kill, worker)
            return
        if isinstance(effect.document, Lease):
            stopped = seconds if kind == "pause_after" else 0.0
            world.at(world.t + took + stopped, world.checks.lease_acknowledged, worker, worker.life, effect.document)
        world.deliver(worker, fault, took, None)

    def _land(self, when: float, worker: Worker, effect: Write, copy: bool) -> None:
        self._world.at(when, self.apply, effect.slot, effect.document, worker, copy)
        if (other := self._world.variant.entangled.get(effect.slot)) is not None:
            self._world.at(when, self.apply, other, worker.seen.get(other), worker)

    def _fail(self, worker: Worker, after: float) -> None:
        if self.mode != "up":
            worker.hit_at = self._world.t
            worker.hits += 1
        self._world.deliver(worker, None, after, None, StoreUnavailable("the simulated store fails"))

    def apply(self, slot: Slot, document: Any, writer: Worker | None = None, copy: bool = False) -> None:
        """Let a write take effect. Without a writer, it is the write of a person."""
        world = self._world
        if world.trace is not None:
            world.note(writer.name if writer else "person", f"Write {slot}{' COPY' if copy else ''} {document}")
        if slot == "session":
            world.checks.session_written(self.documents[slot], document, writer, copy)
        elif slot == "logins" and writer is not None and document is not None:
            world.checks.logins_written(self.documents[slot], document, writer, copy)
        elif slot == "lease" and writer is not None:
            world.checks.lease_written(writer, copy)
        self.documents[slot] = document
