# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a simulated world, and which protocol they follow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.session.documents import TokenPair
from intergiro_provider.session.effects import Effect, Renewed, Renewer, Slot
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.timings import Timings
from tests.unit.session.bank import Pair


class Runs(Protocol):
    """One renewal."""

    def run(self, waited: float = 0.0) -> Generator[Effect, Any, Renewed]: ...

    def abandon(self) -> None: ...


class Renews(Protocol):
    """What renews: the production class, or a mutant of it."""

    def __call__(self, me: Renewer, rejected: TokenPair | None, timings: Timings, /) -> Runs: ...


@dataclass(frozen=True, slots=True)
class Variant:
    """The protocol under test.

    :param timings: what it goes by; the checks go by the production timings.
    :param entangled: slots that are one document here: writing the first overwrites the second with what the writer
        last saw of it.
    """

    name: str = "production"
    protocol: Renews = Renewal
    timings: Timings = field(default_factory=Timings)
    entangled: Mapping[Slot, Slot] = field(default_factory=dict)


PRODUCTION = Variant()


@dataclass(frozen=True, slots=True)
class Use:
    """A task's own request with this access token. Answer: whether the bank let it in."""

    access_token: str


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the distributed lock. Answer: whether that worked."""


@dataclass(slots=True, eq=False)
class Worker:
    """A process, again and again: it starts anew when it is killed.

    :param skew: how far its wall clock is ahead.
    :param work: pause between two requests of its tasks.
    :param begins: when it first starts.
    """

    name: str
    member: Renewer
    skew: float = 0.0
    work: float = 5.0
    begins: float = 0.0
    key_changed: bool = False
    offset: float | None = None
    cache: TokenPair | None = None
    process: Generator[Any, Any, None] | None = None
    life: int = 0
    lock_lost: bool = False
    renewal: Runs | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    # What the checks look at.
    renewing_since: float | None = None
    paused: float = 0.0
    hits: int = 0
    hit_at: float = -1.0
    acked: float | None = None
    nonce: str = ""
    asked_clock_at: float = -1.0
    lease_read_at: float = -1.0
    session_read_at: float = -1.0
    calling: str = ""
    call_started: float = -1.0
    sent: dict[str, int] = field(default_factory=dict)
    holding: Pair | None = None
    # What the tests look at.
    abandoned: int = 0
    successes: list[float] = field(default_factory=list)
    errors: list[tuple[float, IntergiroError]] = field(default_factory=list)
    renewed: list[tuple[float, Renewed]] = field(default_factory=list)

    @property
    def error(self) -> IntergiroError | None:
        """The last error of its tasks."""
        return self.errors[-1][1] if self.errors else None
