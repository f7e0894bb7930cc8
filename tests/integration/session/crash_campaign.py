# SPDX-License-Identifier: Apache-2.0
"""Many fleets in parallel. In each, a signal hits the renewing process at another point.

`make crashes` runs it through `scripts/crash_campaign.py`; the tests run a small version.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from intergiro_provider.sandbox import Sandbox
from tests.integration.session import crash_checks
from tests.integration.session.crashes import Case, Fleet, Result
from tests.integration.session.steps import Strike, positions

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Record:
    """The result of one fleet, which JSON can hold.

    :param logins: the number of logins beyond those of a renewal without a fault.
    :param went_on: seconds from the signal to the first response to another process.
    :param errors: the errors of the other processes before they continued, with their number.
    """

    start: str
    world: str
    lock: str
    real: bool
    step: str
    nth: int
    position: str
    signal: int
    struck: bool
    logins: int
    lost: int
    reused: int
    refused: int
    went_on: float
    errors: dict[str, int]
    violations: list[str]

    @property
    def where(self) -> str:
        world = {"refused": "", "revokes": ", re-use revokes", "works": ", old token works"}[self.world]
        return (
            f"{self.start}, {self.lock or 'no'} lock{world}{', real times' if self.real else ''}: "
            f"{signal.Signals(self.signal).name} {self.position} {self.step} {self.nth}"
        )


def record_of(result: Result) -> Record:
    case = result.case
    strike = case.strike or Strike("", 0, "after", signal.SIGKILL)
    return Record(
        **{**asdict(strike), "signal": int(strike.signal)},
        start=case.start,
        world=case.world,
        lock=case.lock,
        real=case.real,
        struck=result.struck,
        logins=crash_checks.extra_logins(result),
        lost=crash_checks.lost(result),
        reused=result.counters.refresh_reused,
        refused=result.counters.refresh_refused,
        went_on=round(result.went_on, 2),
        errors=dict(Counter(error for said in result.said.values() for error in said.errors)),
        violations=crash_checks.violations(result),
    )


class Campaign:
    """Runs fleets in parallel, each with its own bank.

    :param directory: the directory for the files of the processes.
    :param locks: the connections of the distributed locks, as JSON.
    """

    def __init__(self, banks: list[Sandbox], directory: Path, locks: dict[str, str]) -> None:
        self._directory, self._locks = directory, locks
        self._free: queue.Queue[Sandbox] = queue.Queue()
        self._size = len(banks)
        for bank in banks:
            self._free.put(bank)

    def one(self, case: Case) -> Result:
        bank = self._free.get()
        fleet = Fleet(case, next(_numbers), bank, self._directory, self._locks)
        try:
            return fleet.run()
        finally:
            fleet.stop()
            self._free.put(bank)

    def all(
        self,
        cases: Iterable[Case],
        tell: Callable[[Record], Any] = lambda record: None,
        seconds: float = float("inf"),
    ) -> list[Record]:
        """Run these cases, and call `tell` with each result. After `seconds`, no case is started."""
        until = time.monotonic() + seconds

        def work(case: Case) -> Record | None:
            if time.monotonic() > until:
                return None
            record = record_of(self.one(case))
            tell(record)
            return record

        with ThreadPoolExecutor(self._size) as pool:
            return [record for record in pool.map(work, cases) if record is not None]

    def every_point_of(self, cases: list[Case]) -> Iterator[Case]:
        """Yield each case with every point at which a signal can hit its renewing process."""
        with ThreadPoolExecutor(self._size) as pool:
            results = list(pool.map(self.one, cases))
        for case, result in zip(cases, results, strict=True):
            for step, nth in steps_of(result):
                for position in positions(step):
                    yield replace(case, strike=Strike(step, nth, position, signal.SIGKILL))


def steps_of(result: Result) -> list[tuple[str, int]]:
    """Return the steps of the victim up to its first response. Repeated reads and waits count once."""
    seen: Counter[str] = Counter()
    steps = []
    for entry in result.entries:
        if entry.who == "victim" and entry.kind == "begin" and entry.at < result.said["victim"].at:
            seen[entry.step] += 1
            if entry.step not in ("look", "sleep") or seen[entry.step] <= 2:
                steps.append((entry.step, seen[entry.step]))
    return steps


def let_readers_read(database: Path) -> None:
    """Switch a SQLite database to WAL, so that readers do not block writers, as on a database server."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def campaign(size: int, directory: Path, locks: dict[str, str]) -> Iterator[Campaign]:
    """Run a campaign with this number of fleets at the same time."""
    with ExitStack() as stack:
        banks = [stack.enter_context(Sandbox(process=True, transactions=1)) for _ in range(size)]
        yield Campaign(banks, directory, locks)


SHRUNK_CASES = [
    *(Case(start, "refused", lock) for lock in ("", "redis", "postgres") for start in ("cold", "expired", "ended")),
    Case("expired", "revokes"),
    Case("ended", "revokes"),
    Case("expired", "works"),
]
"""The cases that are run at every point."""

REAL_CASES = [
    Case(start, strike=Strike(step, nth, position, signal.SIGKILL), real=True)
    for start, step, nth, position in (
        ("cold", "write lease", 1, "after"),
        ("cold", "write logins", 1, "after"),
        ("cold", "log in", 1, "during"),
        ("cold", "write session", 1, "before"),
        ("expired", "probe", 1, "before"),
        ("expired", "refresh", 1, "before"),
        ("expired", "refresh", 1, "after"),
        ("expired", "write session", 1, "during"),
        ("expired", "write session", 1, "after"),
        ("ended", "log in", 1, "after"),
    )
]
"""Ten cases with the timings of production."""


class Progress:
    """Prints the progress of a campaign from time to time, and each violation at once."""

    def __init__(self, total: int, every: float = 15.0) -> None:
        self._total, self._every = total, every
        self._done = self._kills = 0
        self._told = self._began = time.monotonic()

    def __call__(self, record: Record) -> None:
        self._done += 1
        self._kills += record.struck
        now = time.monotonic()
        for violation in record.violations:
            print(f"VIOLATED: {record.where}: {violation}", flush=True)
        if now - self._told >= self._every or self._done == self._total:
            self._told = now
            print(f"{self._done} of {self._total} fleets, {self._kills} kills, {now - self._began:.0f} s", flush=True)
