# SPDX-License-Identifier: Apache-2.0
"""Seeded random walks: a world, a start and a few faults, all drawn from one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intergiro_provider.exceptions import IntergiroAuthError, LoginBudgetExhausted
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import (
    BankTime,
    ConfirmAbsent,
    LogIn,
    Now,
    Probe,
    Read,
    Refresh,
    Renewer,
    Sleep,
    Write,
)
from tests.unit.session import line, variables
from tests.unit.session.actors import PRODUCTION, Use, Variant, Worker
from tests.unit.session.bank import RULES, Bank, Pair
from tests.unit.session.checks import Violation
from tests.unit.session.faults import Fault, Kind
from tests.unit.session.world import World

KEY = "key-1"
CALM = 400.0
"""Seconds after which there are no more faults, in a walk that is no race."""

START = ("cold", "live", "expired", "expired", "ended", "restored", "leased", "deleted", "deleted first")


@dataclass(slots=True)
class Target:
    """A fault of the n-th effect of a kind in the whole world."""

    kind: type[Any]
    slot: str | None
    skip: int
    fault: Fault
    times: int = 1


class Aimed:
    """The faults of one walk.

    :param start: the initial state of the store and the bank; see :func:`prepare`.
    :param calm: seconds after which there are no more faults.
    """

    def __init__(self, start: str, calm: float) -> None:
        self.start = start
        self.calm = calm
        self.targets: list[Target] = []
        self.last = 0.0

    def __call__(self, world: World, worker: Worker, effect: Any) -> Fault | None:
        for target in self.targets:
            if type(effect) is target.kind and (target.slot is None or effect.slot == target.slot):
                if target.skip:
                    target.skip -= 1
                    continue
                if world.t > self.calm:
                    return None
                target.times -= 1
                if not target.times:
                    self.targets.remove(target)
                self.last = max(self.last, world.t + target.fault.seconds)
                return target.fault
        return None


SLOTS = ("session", "lease", "logins")
EXCHANGE: tuple[Kind, ...] = (
    *("kill", "kill_after", "pause", "pause_after"),
    *("lost", "dropped", "unsent", "busy", "limited", "garbled"),
)
PLACES: tuple[tuple[type[Any], str | None, int, tuple[Kind, ...]], ...] = (
    (Write, "lease", 4, ("kill", "kill_after", "pause", "pause_after", "fail", "fail_applied", "slow", "slow", "slow")),
    (Write, "session", 3, ("kill", "kill_after", "pause", "pause_after", "fail", "fail_applied", "slow", "slow")),
    (Write, "logins", 2, ("kill", "kill_after", "pause", "pause_after", "fail", "fail_applied", "slow")),
    (Read, "session", 12, ("kill", "pause", "pause_after", "missing", "missing", "fail")),
    (Read, "lease", 10, ("kill", "pause", "pause_after", "missing", "missing", "fail")),
    (Read, "logins", 4, ("kill", "pause", "pause_after", "missing", "fail")),
    (ConfirmAbsent, None, 2, ("kill", "fail", "pause_after")),
    (Probe, None, 2, ("kill", "kill_after", "pause", "pause_after", "dropped", "unsent", "busy", "limited")),
    (
        Refresh,
        None,
        2,
        ("kill", "kill_after", "pause", "pause_after", "lost", "dropped", "unsent", "busy", "limited", "garbled"),
    ),
    (
        LogIn,
        None,
        2,
        ("kill", "kill_after", "pause", "pause_after", "lost", "dropped", "unsent", "busy", "limited", "garbled"),
    ),
    (Now, None, 30, ("pause", "pause_after", "kill")),
    (Sleep, None, 20, ("pause_after",)),
    (BankTime, None, 4, ("pause", "pause_after", "kill")),
    (Use, None, 8, ("forbidden", "pause_after", "kill")),
)


RACES: tuple[tuple[type[Any], str | None, int, tuple[Kind, ...]], ...] = (
    (Write, "lease", 4, ("slow", "slow", "slow", "fail_applied", "pause")),
    (Write, "session", 2, ("slow", "fail_applied", "pause")),
    (Write, "logins", 2, ("slow", "pause")),
    (Read, "lease", 4, ("pause_after", "missing")),
    (Read, "session", 4, ("pause_after", "missing")),
    (Read, "logins", 2, ("pause", "missing")),
    (ConfirmAbsent, None, 4, ("pause_after",)),
    (Refresh, None, 2, ("pause_after", "garbled")),
    (LogIn, None, 2, ("pause_after",)),
    (Use, None, 3, ("forbidden",)),
)
"""Effects at which a small fault at the right moment can break mutual exclusion."""


def draw_target(rng: random.Random, race: bool) -> Target:
    effect, slot, within, kinds = rng.choice(RACES if race else PLACES)
    kind = rng.choice(kinds)
    seconds, late = 0.0, None
    if kind.startswith("pause"):
        seconds = rng.choice((0.6, 1.2, 2.2, 6.0) if race else (3.0, 30.0, 70.0, 100.0, 155.0, 170.0, 300.0))
    elif kind == "slow":
        seconds = rng.choice((rng.uniform(0.85, 4.0), rng.uniform(0.85, 39.0)))
        late = rng.choice((None, rng.uniform(0.3, 6.0), rng.uniform(0.3, 39.0), seconds + rng.uniform(0.0, 3.0)))
    elif kind in ("fail", "fail_applied"):
        seconds = rng.choice((0.3, 5.0, 39.0))
        late = rng.choice((None, rng.uniform(0.1, 39.0)))
    elif kind in ("busy", "limited"):
        late = rng.choice((None, 0.0, 5.0, 60.0))
    times = rng.choice((1, 2, 4)) if kind == "missing" else 1
    return Target(effect, slot, rng.randrange(within), Fault(kind, seconds, late), times)


def prepare(world: World, start: str, rng: random.Random) -> None:
    """Create the initial state of the store and the bank."""
    bank, life = world.bank, world.bank.access_life
    if start == "cold":
        return
    pair = bank.log_in(KEY, -(0.5 * life if start == "live" else life + 1.0), person=True)
    if start == "restored":
        bank.session_life = math.inf
        pair_now = _next_pair(bank, pair)
        world.variables.apply("session", session_of(pair_now, gen=6, nonce="n6"))
    gen = 4 if start == "restored" else 5
    if not start.startswith("deleted"):
        world.variables.apply("session", session_of(pair, gen=gen, nonce=f"n{gen}"))
    if start == "deleted first":
        # As after the first login.
        world.variables.apply("lease", Lease(gen=0, nonce="n1", release_reason="done"))
    elif start != "leased":
        lease_gen = 5 if start == "restored" else 4
        world.variables.apply("lease", Lease(gen=lease_gen, nonce=f"n{lease_gen + 1}"))
    else:
        # A process was killed while it held this lease.
        world.variables.apply("lease", Lease(gen=gen, nonce="dead"))
    if start == "ended":
        bank.end_sessions()
    world.checks.person_at = -1.0


def _next_pair(bank: Bank, pair: Pair) -> Pair:
    newer = bank.refresh(pair.refresh, 0.0)
    assert newer is not None
    bank.refreshes = 0
    return newer


def session_of(pair: Pair, *, gen: int, nonce: str) -> TokenPair:
    return TokenPair(pair.access, pair.refresh, gen, nonce, writer="before")


def _delete_session(world: World) -> None:
    world.variables.apply("session", None)


def _end_sessions(world: World) -> None:
    world.bank.end_sessions()
    world.note("bank", "ends every session")


def _test_connection(world: World) -> None:
    world.bank.log_in(KEY, world.t, person=True)


def _store_mode(world: World, mode: variables.Mode) -> None:
    world.variables.mode = mode
    world.hits += 1
    world.note("store", mode)


def _bank_mode(world: World, mode: line.Mode) -> None:
    world.line.mode = mode
    world.hits += 1
    world.note("bank", mode)


def draw_event(world: World, rng: random.Random) -> None:
    """Return an event that affects the whole world."""
    when = rng.uniform(0.0, CALM / 2)
    until = min(CALM, when + rng.choice((2.0, 20.0, 100.0)))
    what = rng.choice(("store", "store", "bank", "bank", "end", "end", "delete", "test", "lock"))
    if what == "store":
        world.at(when, _store_mode, world, rng.choice(("down", "readonly", "blind")))
        world.at(until, _store_mode, world, "up")
    elif what == "bank":
        world.at(when, _bank_mode, world, rng.choice(("down", "ill", "mute")))
        world.at(until, _bank_mode, world, "up")
    elif what == "lock":
        world.at(when, world.lose_lock, "L")
    else:
        event: Callable[[World], None] = {
            "end": _end_sessions,
            "delete": _delete_session,
            "test": _test_connection,
        }[what]
        world.at(when, event, world)


def draw_locks(rng: random.Random, count: int) -> list[str | None]:
    kind = rng.choice(("none", "none", "none", "strict", "mixed"))
    if kind == "none":
        return [None] * count
    if kind == "strict":
        return ["L"] * count
    return [rng.choice((None, "L", "M")) for _ in range(count)]


def build(seed: int, variant: Variant = PRODUCTION, faults: int | None = None) -> tuple[World, Aimed]:
    """Return the world of this walk.

    Every second walk is a race: all workers need a session at once, Variables and bank are as slow as allowed, and the
    faults are small.

    :param faults: the number of faults; None: random.
    """
    rng = random.Random(seed)
    race = rng.random() < 0.5
    count = rng.choice((2, 2, 3, 3, 4))
    if faults is None:
        faults = rng.choice((1, 1, 2, 2, 3))
    access_life = rng.choice((60.0, 120.0, 300.0))
    aimed = Aimed(rng.choice(START), 60.0 if race else CALM)
    locks = draw_locks(rng, count)
    workers = [
        Worker(
            name,
            Renewer(key=KEY, lock=lock, name=name),
            skew=rng.choice((0.0, 0.0, 0.0, 30.0, -90.0, 3000.0, -3000.0)),
            work=rng.choice((1.0, 5.0)),
            begins=rng.choice((0.0, rng.random())),
        )
        for name, lock in zip("abcd", locks, strict=False)
    ]
    world = World(
        workers,
        bank=Bank(RULES[seed % len(RULES)], access_life, rng.choice((math.inf, math.inf, 250.0))),
        variant=variant,
        faults=aimed,
        seed=seed,
        api=0.39 if race else rng.choice((0.02, 0.1, 0.39)),
        bank_call=rng.choice((0.3, 2.0)),
        slow_calls=0.6 if race else 0.1,
    )
    prepare(world, aimed.start, rng)
    for _ in range(faults):
        if race or rng.random() < 0.75:
            aimed.targets.append(draw_target(rng, race))
        else:
            draw_event(world, rng)
    return world, aimed


def walk(seed: int, variant: Variant = PRODUCTION, faults: int | None = None, trace: bool = False) -> World:
    """Run one walk to its end.

    :raises Violation: a guarantee does not hold, or a worker does not succeed after the last fault.
    """
    world, aimed = build(seed, variant, faults)
    if trace:
        world.trace = []
    try:
        world.run(aimed.calm)
        calm = max(aimed.calm, aimed.last)
        needed = calm + world.bank.access_life

        def all_get_on() -> bool:
            return all(_gets_on(w, needed) for w in world.workers if _must_get_on(world, w))

        world.run(needed)
        world.run(needed + 1000.0, all_get_on)
        if any(isinstance(e, LoginBudgetExhausted) for w in world.workers for _, e in w.errors):
            world.run(needed + 9000.0, all_get_on)
        for worker in world.workers:
            if _must_get_on(world, worker) and not _gets_on(worker, needed):
                raise Violation(f"progress: {worker.name} has no session at {world.t:.0f} s")
            if any(isinstance(e, IntergiroAuthError) for _, e in worker.errors if "permission" not in str(e)):
                raise Violation(f"{worker.name} was told that its API key is wrong")
    except Violation as violation:
        violation.add_note(f"walk({seed}, faults={faults}) {world.bank.rule}")
        if trace:
            violation.add_note(world.story())
        raise
    return world


def _gets_on(worker: Worker, since: float) -> bool:
    return bool(worker.successes) and worker.successes[-1] >= since


def _must_get_on(world: World, worker: Worker) -> bool:
    """Return the workers that must succeed. With different locks, only those with the session's lock."""
    session = world.variables.documents["session"]
    return session is None or session.lock == worker.member.lock
