# SPDX-License-Identifier: Apache-2.0
"""A simulated world that drives the production protocol of many workers on a virtual clock.

Every worker is a process with tasks. It uses its session, and after a 401 runs a production
:class:`
intergiro_provider.session.renewal.Renewal`. The world performs the effects with different latencies, so that the
workers interleave. A fault decider (:mod:`.faults`) chooses the faults, and :mod:`.checks` checks the guarantees at
every step. The same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any

from intergiro_provider.exceptions import IntergiroAuthError, IntergiroError, StoreUnavailable
from intergiro_provider.session.documents import TokenPair
from intergiro_provider.session.effects import (
    Abandoned,
    BankTime,
    CheckKey,
    ConfirmAbsent,
    LogIn,
    NewNonce,
    Now,
    Probe,
    Read,
    Refresh,
    Renewed,
    Sleep,
    Write,
)
from tests.unit.session.actors import PRODUCTION, Acquire, Use, Variant, Worker
from tests.unit.session.bank import Bank
from tests.unit.session.checks import Checks, Violation
from tests.unit.session.faults import Fault, Faults, none
from tests.unit.session.line import Line
from tests.unit.session.variables import Variables

RENEWALS = 3
MAX_EVENTS = 400_000
HARMLESS = frozenset({"missing", "forbidden", "unsent", "busy"})
"""Faults that excuse no later violation."""


class World:
    """Workers, the Variables, the bank and a clock.

    :param workers: the workers.
    :param variant: the protocol of the workers.
    :param api: the longest half of a Variable operation without a fault, in seconds.
    :param bank_call: the usual upper limit of a bank call, in seconds.
    :param slow_calls: the share of bank calls that can take up to the longest allowed time.
    :param patience: seconds until the retry of a failed task.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        bank: Bank | None = None,
        variant: Variant = PRODUCTION,
        faults: Faults = none,
        seed: int = 0,
        api: float = 0.1,
        bank_call: float = 0.5,
        slow_calls: float = 0.1,
        patience: float = 10.0,
    ) -> None:
        self.t = 0.0
        self.workers = list(workers)
        self.bank = bank or Bank()
        self.timings = PRODUCTION.timings
        self.variant = variant
        self.faults = faults
        self.rng = random.Random(seed)
        self.variables = Variables(self, api)
        self.line = Line(self, self.bank, bank_call, slow_calls)
        self.lock_owners: dict[str, Worker] = {}
        self.trace: list[tuple[float, str, str]] | None = None
        self.hits = 0
        self.checks = Checks(self)
        self.events = 0
        self._patience = patience
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._nonces = 0
        self._connect()
        for worker in self.workers:
            self.start(worker, worker.begins)

    def _connect(self) -> None:
        self._effects: dict[type[Any], Callable[..., None]] = {
            Now: self._now,
            NewNonce: self._nonce,
            CheckKey: self._key,
            Sleep: self._sleep,
            Acquire: self._acquire,
            Read: self.variables.read,
            ConfirmAbsent: self.variables.read,
            Write: self.variables.write,
            BankTime: self.line.time,
            Use: self.line.use,
            Probe: self.line.call,
            Refresh: self.line.call,
            LogIn: self.line.call,
        }

    def __getitem__(self, name: str) -> Worker:
        return next(worker for worker in self.workers if worker.name == name)

    # The clock.

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Call a function at this time."""
        self.events += 1
        heapq.heappush(self._heap, (when, self.events, what, args))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> World:
        """Run until this time, or until `done` returns True."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            if self.events > MAX_EVENTS:
                raise Violation(f"no end after {MAX_EVENTS} events, at {self.t:.0f} s")
            self.t, _, what, args = heapq.heappop(heap)
            what(*args)
            if done is not None and done():
                return self
        self.t = max(self.t, until)
        return self

    def note(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.append((self.t, who, what))

    def story(self, brief: bool = False) -> str:
        """Return the trace as text.

        :param brief: without results and reads.
        """
        lines = self.trace or []
        if brief:
            lines = [line for line in lines if not line[2].startswith(("    ", "Read"))]
        return "\n".join(f"{t:9.3f} {who:6} {what}" for t, who, what in lines)

    # Workers.

    def start(self, worker: Worker, when: float) -> None:
        """Start or restart the process of a worker."""
        worker.life += 1
        worker.cache, worker.offset = None, None
        worker.process = self._live(worker)
        self.at(when, self._resume, worker, worker.life, None, None)

    def kill(self, worker: Worker, restart_after: float | None = 5.0) -> None:
        """Kill a worker. Its sent requests and writes still arrive."""
        self.note(worker.name, "KILLED")
        worker.life += 1
        worker.process = None
        worker.calling, worker.holding, worker.renewing_since = "", None, None
        self._unlock(worker)
        if restart_after is not None:
            self.start(worker, self.t + restart_after)

    def _live(self, worker: Worker) -> Generator[Any, Any, None]:
        while True:
            try:
                yield from self._task(worker)
                yield Sleep(worker.work, jitter=worker.work)
            except Abandoned:
                worker.abandoned += 1
                return
            except IntergiroError as error:
                self.note(worker.name, f"FAILED {type(error).__name__}: {str(error)[:60]}")
                worker.errors.append((self.t, error))
                worker.cache, worker.offset = None, None
                yield Sleep(self._patience, jitter=self._patience)

    def _task(self, worker: Worker) -> Generator[Any, Any, None]:
        session = worker.cache
        if session is None:
            session = (yield from self._renew(worker, None)).pair
        alive = False
        for _ in range(RENEWALS + 1):
            if (yield Use(session.access_token)):
                worker.successes.append(self.t)
                return
            if alive:
                break
            renewed = yield from self._renew(worker, session)
            session, alive = renewed.pair, renewed.how == "alive"
        raise IntergiroAuthError("a permission, not expiry")

    def _renew(self, worker: Worker, rejected: TokenPair | None) -> Generator[Any, Any, Renewed]:
        self.checks.renewal_begins(worker)
        since = self.t
        try:
            while worker.member.lock is not None and not (yield Acquire()):
                yield Sleep(self.timings.poll)
                if self.t - since > self.timings.wait:
                    raise StoreUnavailable("the distributed lock was never free")
            renewal = worker.renewal = self.variant.protocol(worker.member, rejected, self.variant.timings)
            renewed = yield from renewal.run(self.t - since)
        except IntergiroError:
            self.checks.renewal_ends(worker)
            raise
        finally:
            self._unlock(worker)
        self.checks.renewal_ends(worker)
        worker.renewed.append((self.t, renewed))
        self.note(worker.name, f"RENEWED {renewed.how} gen {renewed.pair.gen} stored={renewed.stored}")
        worker.cache = renewed.pair
        return renewed

    def _unlock(self, worker: Worker) -> None:
        for lock in [name for name, owner in self.lock_owners.items() if owner is worker]:
            del self.lock_owners[lock]
        worker.lock_lost = False

    def lose_lock(self, lock: str) -> None:
        """The lock service loses this lock. The holder does not know yet."""
        if owner := self.lock_owners.pop(lock, None):
            owner.lock_lost = True
            self.checks.exclusion_at_risk = True
            owner.hit_at = self.t

    # Effects.

    def _resume(self, worker: Worker, life: int, value: Any, error: IntergiroError | None) -> None:
        """Give the process a result, and start its next effects."""
        process = worker.process
        if worker.life != life or process is None:
            return
        worker.calling = ""
        while True:
            try:
                effect = process.throw(error) if error is not None else process.send(value)
            except StopIteration:
                worker.process = None
                return
            error = None
            fault = self.faults(self, worker, effect)
            if fault is None and type(effect) is Now:
                worker.asked_clock_at = value = self.t
                continue
            if fault is not None:
                self._hit(worker, effect, fault)
                if fault.kind == "kill":
                    self.kill(worker)
                    return
                if fault.kind == "pause":
                    self._pause(worker, fault.seconds)
                    self.at(self.t + fault.seconds, self._begin, worker, life, effect)
                    return
            self._effects[type(effect)](worker, effect, fault)
            return

    def _hit(self, worker: Worker, effect: Any, fault: Fault) -> None:
        self.hits += 1
        worker.hits += 1
        if fault.kind not in HARMLESS:
            worker.hit_at = self.t
        self.note(worker.name, f"FAULT {fault.kind} {fault.seconds:.2f} {fault.late} at {effect}")

    def _pause(self, worker: Worker, seconds: float) -> None:
        worker.paused += seconds
        worker.hit_at = self.t + seconds

    def _begin(self, worker: Worker, life: int, effect: Any) -> None:
        if worker.life == life:
            self._effects[type(effect)](worker, effect, None)

    def deliver(
        self, worker: Worker, fault: Fault | None, after: float, value: Any, error: IntergiroError | None = None
    ) -> None:
        """Give the process this result `after` these seconds."""
        if self.trace is not None and value is not None:
            self.note(worker.name, f"    = {value}")
        if fault is not None:
            if fault.kind == "kill_after":
                self.kill(worker)
                return
            if fault.kind == "pause_after":
                self._pause(worker, after + fault.seconds)
                after += fault.seconds
        self.at(self.t + after, self._resume, worker, worker.life, value, error)

    def _now(self, worker: Worker, effect: Now, fault: Fault | None) -> None:
        worker.asked_clock_at = self.t
        self.deliver(worker, fault, 0.0, self.t)

    def _nonce(self, worker: Worker, effect: NewNonce, fault: Fault | None) -> None:
        self._nonces += 1
        self.deliver(worker, fault, 0.0, f"{worker.name}{self._nonces}")

    def _key(self, worker: Worker, effect: CheckKey, fault: Fault | None) -> None:
        self.deliver(worker, fault, self.rng.uniform(0.01, 0.1), not worker.key_changed)

    def _sleep(self, worker: Worker, effect: Sleep, fault: Fault | None) -> None:
        self.deliver(worker, fault, self.slept(effect), None)

    def slept(self, effect: Sleep) -> float:
        """Return the duration of a sleep, which is never too short."""
        return effect.seconds + self.rng.random() * effect.jitter + 0.001

    def _acquire(self, worker: Worker, effect: Acquire, fault: Fault | None) -> None:
        free = self.lock_owners.setdefault(worker.member.lock or "", worker) is worker
        self.deliver(worker, fault, self.rng.uniform(0.01, 0.1), free)
