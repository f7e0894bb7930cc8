# SPDX-License-Identifier: Apache-2.0
"""Small worlds for tests of one thing: who comes when, what is stored, and the faults by script."""

from __future__ import annotations

from typing import Any

from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import Renewer
from tests.unit.session.actors import PRODUCTION, Variant, Worker
from tests.unit.session.bank import Bank, Pair
from tests.unit.session.faults import Faults, none
from tests.unit.session.world import World

KEY = "key-1"
TIMINGS = PRODUCTION.timings
LIFE = 900.0
"""Seconds that an access token lives in these worlds, if not told otherwise."""


def session_of(pair: Pair, *, gen: int = 5, nonce: str = "n5", lock: str | None = None) -> TokenPair:
    """The stored form of a pair, as an earlier renewal left it."""
    return TokenPair(pair.access, pair.refresh, gen, nonce, lock=lock, writer="before")


def scene(
    variant: Variant = PRODUCTION,
    names: str = "a",
    *,
    faults: Faults = none,
    bank: Bank | None = None,
    locks: dict[str, str | None] | None = None,
    skews: dict[str, float] | None = None,
    gap: float = 2.0,
    **settings: Any,
) -> World:
    """A world with nothing stored; each worker begins `gap` seconds after the one before it."""
    workers = [
        Worker(
            name,
            Renewer(key=KEY, lock=(locks or {}).get(name), name=name),
            begins=number * gap,
            skew=(skews or {}).get(name, 0.0),
        )
        for number, name in enumerate(names)
    ]
    world = World(workers, variant=variant, faults=faults, bank=bank or Bank("strict", LIFE), **settings)
    world.trace = []
    return world


def with_session(world: World, age: float = LIFE + 1.0, **fields: Any) -> Pair:
    """Store a session whose access token is that old, and the lease under which it was made; its pair."""
    pair = world.bank.log_in(KEY, world.t - age, person=True)
    session = session_of(pair, **fields)
    put(world, session)
    world.variables.apply("lease", Lease(gen=session.gen - 1, nonce=session.nonce))
    return pair


def put(world: World, session: TokenPair | None) -> None:
    """Store this session, as a person would."""
    world.variables.apply("session", session)


def stored(world: World) -> TokenPair:
    """The session that is stored."""
    session: TokenPair | None = world.variables.documents["session"]
    assert session is not None
    return session


def lease_of(world: World) -> Lease:
    lease: Lease | None = world.variables.documents["lease"]
    assert lease is not None
    return lease


def calls(world: World, who: str | None = None) -> list[str]:
    """The bank calls of a renewal that were made, in order."""
    return [
        f"{name}:{what.split(' ')[0]}"
        for _, name, what in world.trace or []
        if what.split(" ")[0] in ("Probe", "Refresh", "LogIn") and who in (None, name)
    ]


def hows(world: World) -> list[str]:
    """How the renewals ended that ended well: `a:refreshed`, in order of time."""
    ended = [(when, f"{worker.name}:{renewed.how}") for worker in world.workers for when, renewed in worker.renewed]
    return [text for _, text in sorted(ended)]


def end_sessions(world: World, when: float) -> None:
    """Have the bank end every session at this time."""
    world.at(when, world.bank.end_sessions)
