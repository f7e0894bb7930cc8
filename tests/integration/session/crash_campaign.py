# SPDX-License-Identifier: Apache-2.0
"""Many fleets, side by side, each with its renewing process struck at another point.

`make crashes` runs it by way of `scripts/crash_campaign.py`; the tests run a small form.
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
from tests.integration.session import crash_verdict
from tests.integration.session.crashes import Case, Fleet, Result
from tests.integration.session.steps import Strike, positions

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Record:
    """What is reported of one fleet; as plain as JSON.

    :param logins: beyond those that the renewal takes without a fault.
    :param went_on: seconds from the strike to the first answer that another process had.
    :param errors: what the others raised before they were back at work, and how often.
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
        logins=crash_verdict.extra_logins(result),
        lost=crash_verdict.lost(result),
        reused=result.counters.refresh_reused,
        refused=result.counters.refresh_refused,
        went_on=round(result.went_on, 2),
        errors=dict(Counter(error for said in result.said.values() for error in said.errors)),
        violations=crash_verdict.violations(result),
    )


class Campaign:
    """Runs fleets side by side, each against a bank of its own.

    :param directory: for what the processes of the fleets write.
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
        """Each of the cases; `tell` hears of each as it ends. None is begun after so many seconds."""
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
        """Each case at every point at which its renewing process can be struck."""
        with ThreadPoolExecutor(self._size) as pool:
            results = list(pool.map(self.one, cases))
        for case, result in zip(cases, results, strict=True):
            for step, nth in steps_of(result):
                for position in positions(step):
                    yield replace(case, strike=Strike(step, nth, position, signal.SIGKILL))


def steps_of(result: Result) -> list[tuple[str, int]]:
    """What the victim did up to its first answer; repeated looks and waits once."""
    seen: Counter[str] = Counter()
    steps = []
    for entry in result.entries:
        if entry.who == "victim" and entry.kind == "begin" and entry.at < result.said["victim"].at:
            seen[entry.step] += 1
            if entry.step not in ("look", "sleep") or seen[entry.step] <= 2:
                steps.append((entry.step, seen[entry.step]))
    return steps


def let_readers_read(database: Path) -> None:
    """Have a SQLite database behave as a server does, where who reads does not block who writes."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def campaign(size: int, directory: Path, locks: dict[str, str]) -> Iterator[Campaign]:
    """A campaign of so many fleets at a time."""
    with ExitStack() as stack:
        banks = [stack.enter_context(Sandbox(process=True, transactions=1)) for _ in range(size)]
        yield Campaign(banks, directory, locks)


SHRUNK_CASES = [
    *(Case(start, "refused", lock) for lock in ("", "redis", "postgres") for start in ("cold", "expired", "ended")),
    Case("expired", "revokes"),
    Case("ended", "revokes"),
    Case("expired", "works"),
]
"""Those that are gone through point by point."""

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
"""Ten with the times of production."""


class Progress:
    """Tells now and then how far a campaign has come, and of each violation at once."""

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
