# SPDX-License-Identifier: Apache-2.0
"""The connection from the workers of a simulated world to the bank, on which requests and responses get lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.effects import BankResponse, BankTime, LogIn, Moment, Outcome, Probe, Refresh
from tests.unit.session.actors import Use, Worker
from tests.unit.session.bank import EPOCH, Bank, Pair
from tests.unit.session.faults import Fault, Kind

if TYPE_CHECKING:
    from tests.unit.session.world import World

Mode = Literal["up", "down", "ill", "mute"]
OUTAGES: dict[Mode, Kind] = {"down": "unsent", "ill": "busy", "mute": "dropped"}


class Line:
    """Transports requests to the bank, and responses back.

    :param call: the usual upper limit of a call, in seconds.
    :param slow_calls: the share of calls that can take up to the longest allowed time.
    """

    def __init__(self, world: World, bank: Bank, call: float, slow_calls: float) -> None:
        self.mode: Mode = "up"  # down: nothing is sent; ill: 503; mute: no response arrives
        self._world = world
        self._bank = bank
        self._call = call
        self._slow_calls = slow_calls

    def time(self, worker: Worker, effect: BankTime, fault: Fault | None) -> None:
        world = self._world
        if worker.offset is None and effect.exact and self.mode == "up":
            after = world.rng.uniform(0.02, self._call)
            self._learn_time(worker, after)
            world.deliver(worker, fault, after, Moment(EPOCH + world.t + after + (worker.offset or 0.0)))
            return
        off = worker.skew if worker.offset is None else worker.offset
        world.deliver(worker, fault, 0.0, Moment(EPOCH + world.t + off, worker.offset is not None))

    def _learn_time(self, worker: Worker, travel: float) -> None:
        """Learn the bank's time from a Date header: in whole seconds, and delayed by the transport."""
        worker.offset = -(self._world.t % 1.0) - travel

    def use(self, worker: Worker, effect: Use, fault: Fault | None) -> None:
        world = self._world
        ok = self._bank.accepts(effect.access_token, world.t)
        if fault is not None and fault.kind == "forbidden":
            ok = False
        travel = world.rng.uniform(0.02, self._call)
        if not ok:
            self._learn_time(worker, travel)
        world.deliver(worker, fault, travel, ok)

    def call(self, worker: Worker, effect: Probe | Refresh | LogIn, fault: Fault | None) -> None:
        world = self._world
        if worker.lock_lost:
            world.deliver(worker, None, 0.01, None, StoreUnavailable("the distributed lock is lost"))
            return
        if not isinstance(effect, Probe):
            worker.calling = "login" if isinstance(effect, LogIn) else "refresh"
            worker.call_started = world.t
        if world.trace is not None:
            world.note(worker.name, f"{type(effect).__name__} {getattr(effect, 'refresh_token', '')}")
        if self.mode != "up":
            fault = Fault(OUTAGES[self.mode])
        kind = fault.kind if fault is not None else ""
        if kind == "unsent":
            world.deliver(worker, None, world.rng.uniform(0.01, 5.0), BankResponse(Outcome.UNSENT))
            return
        world.checks.bank_called(worker, effect)
        if kind in ("busy", "limited"):
            status = 503 if kind == "busy" else 429
            response = BankResponse(
                Outcome.UNAVAILABLE, status, at=self._date(), retry_after=fault.late if fault else None
            )
            world.deliver(worker, None, world.rng.uniform(0.01, 1.0), response)
        elif kind == "dropped":
            world.deliver(worker, None, world.timings.call, BankResponse(Outcome.UNKNOWN))
        else:
            there, back = self.way(effect)
            world.at(world.t + there, self._carry_out, worker, worker.life, effect, back, fault)

    def way(self, effect: Probe | Refresh | LogIn) -> tuple[float, float]:
        """Return the seconds until a call is carried out, and from then until its response."""
        rng = self._world.rng
        took = rng.uniform(0.02, self._call)
        if rng.random() < self._slow_calls:
            took = rng.uniform(0.0, self._world.timings.call - 0.1)
        there = took * rng.random()
        return there, took - there

    def _date(self) -> float:
        return float(int(EPOCH + self._world.t))

    def _carry_out(
        self, worker: Worker, life: int, effect: Probe | Refresh | LogIn, back: float, fault: Fault | None
    ) -> None:
        world, bank = self._world, self._bank
        alive = worker.life == life
        pair: Pair | None = None
        if isinstance(effect, Probe):
            outcome = Outcome.OK if bank.accepts(effect.access_token, world.t) else Outcome.REFUSED
            response = BankResponse(outcome, 200, at=self._date())
        else:
            if isinstance(effect, Refresh):
                pair = bank.refresh(effect.refresh_token, world.t)
            elif worker.member.key not in bank.refused_keys:
                world.checks.login_carried_out(worker, alive)
                pair = bank.log_in(worker.member.key, world.t)
            if pair is None:
                response = BankResponse(Outcome.REFUSED, 400, at=self._date())
            else:
                kept = bank.keeps_refresh_token and isinstance(effect, Refresh)
                response = BankResponse(Outcome.OK, 200, pair.access, "" if kept else pair.refresh, at=self._date())
        world.checks.carried_out(worker, pair, alive)
        if not alive:
            return
        kind = fault.kind if fault is not None else ""
        if kind in ("lost", "garbled"):
            worker.holding = None
            lost = (
                BankResponse(Outcome.UNKNOWN) if kind == "lost" else BankResponse(Outcome.UNKNOWN, 502, at=self._date())
            )
            world.deliver(worker, None, world.timings.call - 0.01 if kind == "lost" else back, lost)
            return
        self._learn_time(worker, back)
        world.deliver(worker, fault, back, response)
