# SPDX-License-Identifier: Apache-2.0
"""The processes of a simulated world, and the protocol that they follow."""

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
    """A factory of renewals: the production class, or a mutant."""

    def __call__(self, me: Renewer, rejected: TokenPair | None, timings: Timings, /) -> Runs: ...


@dataclass(frozen=True, slots=True)
class Variant:
    """The protocol under test.

    :param timings: the timings of the protocol. The checks use the production timings.
    :param entangled: slots that are one document here: a write of the first overwrites the second with the version that
        the writer last read.
    """

    name: str = "production"
    protocol: Renews = Renewal
    timings: Timings = field(default_factory=Timings)
    entangled: Mapping[Slot, Slot] = field(default_factory=dict)


PRODUCTION = Variant()


@dataclass(frozen=True, slots=True)
class Use:
    """A request of a task with this access token. Result: whether the bank accepted it."""

    access_token: str


@dataclass(frozen=True, slots=True)
class Acquire:
    """Acquire the distributed lock. Result: whether it was acquired."""


@dataclass(slots=True, eq=False)
class Worker:
    """A process that is restarted when it is killed.

    :param skew: seconds by which its wall clock is ahead.
    :param work: seconds between two requests of its tasks.
    :param begins: the time of its first start.
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
    # For the checks.
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
    # For the tests.
    abandoned: int = 0
    successes: list[float] = field(default_factory=list)
    errors: list[tuple[float, IntergiroError]] = field(default_factory=list)
    renewed: list[tuple[float, Renewed]] = field(default_factory=list)

    @property
    def error(self) -> IntergiroError | None:
        """Return the last error of its tasks."""
        return self.errors[-1][1] if self.errors else None
