# SPDX-License-Identifier: Apache-2.0
"""Small worlds for single tests: the workers, the stored documents, and scripted faults."""

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
"""The default lifetime of an access token in these worlds, in seconds."""


def session_of(pair: Pair, *, gen: int = 5, nonce: str = "n5", lock: str | None = None) -> TokenPair:
    """Return the stored form of a pair, as after an earlier renewal."""
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
    """Return a world with an empty store. Each worker begins `gap` seconds after the one before."""
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
    """Store a session with an access token of this age, and its lease. Return the pair."""
    pair = world.bank.log_in(KEY, world.t - age, person=True)
    session = session_of(pair, **fields)
    put(world, session)
    world.variables.apply("lease", Lease(gen=session.gen - 1, nonce=session.nonce))
    return pair


def put(world: World, session: TokenPair | None) -> None:
    """Store this session, as a person does."""
    world.variables.apply("session", session)


def stored(world: World) -> TokenPair:
    """Return the stored session."""
    session: TokenPair | None = world.variables.documents["session"]
    assert session is not None
    return session


def lease_of(world: World) -> Lease:
    lease: Lease | None = world.variables.documents["lease"]
    assert lease is not None
    return lease


def calls(world: World, who: str | None = None) -> list[str]:
    """Return the bank calls of renewals, in order."""
    return [
        f"{name}:{what.split(' ')[0]}"
        for _, name, what in world.trace or []
        if what.split(" ")[0] in ("Probe", "Refresh", "LogIn") and who in (None, name)
    ]


def hows(world: World) -> list[str]:
    """Return the results of the successful renewals, such as `a:refreshed`, in order of time."""
    ended = [(when, f"{worker.name}:{renewed.how}") for worker in world.workers for when, renewed in worker.renewed]
    return [text for _, text in sorted(ended)]


def end_sessions(world: World, when: float) -> None:
    """Let the bank end every session at this time."""
    world.at(when, world.bank.end_sessions)
