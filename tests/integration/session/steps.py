# SPDX-License-Identifier: Apache-2.0
"""Record each step of a renewal from outside; the process can be killed at one of them.

The driver of this process is wrapped, not changed. A step is an effect of the protocol, or an action of the driver:
reading the store, acquiring the locks, releasing them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import requests
import sqlalchemy.event
import sqlalchemy.orm

from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.effects import (
    BankResponse,
    ConfirmAbsent,
    Effect,
    LogIn,
    Probe,
    Read,
    Refresh,
    Sleep,
    Write,
)
from intergiro_provider.session.renewal_locks import RenewalLocks

Position = Literal["before", "during", "after"]

BANK_CALLS = {"probe": "/v3/", "refresh": "/v3/auth/refresh", "log in": "/v3/auth/login"}
IN_FLIGHT = 0.06
"""Seconds after which a bank call has certainly been sent."""
MOMENT = 0.3
"""Seconds of a pause after a signal that has not ended the process."""
BANK_TAKES = 0.2
"""Seconds of the bank's delay before it carries out the call."""


@dataclass(frozen=True)
class Strike:
    """The point at which a signal hits a process.

    :param step: the name of the step, such as ``write lease``.
    :param nth: the occurrence of the step.
    :param position: relative to the step. ``during``: a write is not committed yet, or the bank has not responded yet.
    """

    step: str
    nth: int
    position: Position
    signal: int


@dataclass(frozen=True)
class Entry:
    """The begin or the end of a step, by the clock of this machine.

    :param gen: the generation of the document that was read or written.
    :param what: the outcome of a bank call, the result of a lease, or the name of an error.
    """

    at: float
    who: str
    step: str
    kind: Literal["begin", "end", "strike"]
    gen: int | None = None
    nonce: str = ""
    what: str = ""


@dataclass
class Diary:
    """The steps of all processes of one fleet, in a file to which each process appends lines."""

    path: Path

    def add(self, entry: Entry) -> None:
        line = json.dumps(asdict(entry)) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        if not self.path.exists():
            return []
        return sorted((Entry(**json.loads(line)) for line in self.path.read_text().splitlines()), key=lambda e: e.at)


@dataclass
class Steps:
    """Wraps the driver of this process.

    :param url: the URL of the bank.
    :param at: called at the end of each step.
    """

    diary: Diary
    who: str
    url: str
    strike: Strike | None = None
    at: Callable[[str], None] = lambda step: None
    _counts: Counter[str] = field(default_factory=Counter)
    _writing: bool = False

    def watch(self) -> None:
        """Start to record the steps, until the process ends."""
        perform, look = driver._Run._perform, driver._Run._look
        acquire, release = RenewalLocks.acquire, RenewalLocks.release

        def watched_perform(run: driver._Run, effect: Effect) -> Any:
            step = name_of(effect)
            if step is None:
                return perform(run, effect)
            document = effect.document if isinstance(effect, Write) else None
            return self._watched(step, document, lambda: perform(run, effect))

        def watched_look(run: driver._Run) -> TokenPair | None:
            return self._watched("look", None, lambda: look(run))

        def watched_acquire(locks: RenewalLocks, *args: Any) -> TokenPair | None:
            return self._watched("acquire locks", None, lambda: acquire(locks, *args))

        def watched_release(locks: RenewalLocks) -> None:
            self._watched("release locks", None, lambda: release(locks))

        driver._Run._perform = watched_perform  # type: ignore[method-assign]
        driver._Run._look = watched_look  # type: ignore[method-assign]
        RenewalLocks.acquire, RenewalLocks.release = watched_acquire, watched_release  # type: ignore[method-assign]
        sqlalchemy.event.listen(sqlalchemy.orm.Session, "after_flush", self._flushed)

    def _watched(self, step: str, document: Any, work: Callable[[], Any]) -> Any:
        self._counts[step] += 1
        strike = self.strike
        position = (
            strike.position if strike is not None and (step, self._counts[step]) == (strike.step, strike.nth) else ""
        )
        entry = Entry(time.monotonic(), self.who, step, "begin", **_said(document))
        self.diary.add(entry)
        if position == "before":
            self._struck()
        result: Any = None
        try:
            with self._in_the_middle(step if position == "during" else ""):
                result = work()
        except Exception as error:
            self.diary.add(replace(entry, at=time.monotonic(), kind="end", what=type(error).__name__))
            raise
        self.diary.add(replace(entry, at=time.monotonic(), kind="end", **_said(document or result)))
        if position == "after":
            self._struck()
        self.at(step)
        return result

    @contextmanager
    def _in_the_middle(self, step: str) -> Iterator[None]:
        if step in BANK_CALLS:
            fault = {"kind": "latency", "path": BANK_CALLS[step], "seconds": BANK_TAKES, "times": 1}
            requests.post(f"{self.url}/_sandbox/faults", json=fault, timeout=60).raise_for_status()
            threading.Timer(IN_FLIGHT, self._struck).start()
        self._writing = step.startswith("write ")
        try:
            yield
        finally:
            self._writing = False

    def _flushed(self, *_: Any) -> None:
        if self._writing:
            self._struck()

    def _struck(self) -> None:
        strike = self.strike
        assert strike is not None
        self.diary.add(Entry(time.monotonic(), self.who, f"{strike.step} {strike.nth}", "strike", what=strike.position))
        os.kill(os.getpid(), strike.signal)
        # A signal handler runs in the main thread, while this thread is still in its step.
        time.sleep(MOMENT)


def name_of(effect: Effect) -> str | None:
    """Return the name of the step of an effect; None if the effect stays inside the process."""
    match effect:
        case Read(slot):
            return f"read {slot}"
        case Write(slot, _):
            return f"write {slot}"
        case ConfirmAbsent(slot):
            return f"confirm absent {slot}"
        case Sleep():
            return "sleep"
        case Probe():
            return "probe"
        case Refresh():
            return "refresh"
        case LogIn():
            return "log in"
    return None


def positions(step: str) -> tuple[Position, ...]:
    """Return the positions of a step at which a signal makes a difference."""
    if step in BANK_CALLS or step.startswith("write "):
        return ("before", "during", "after")
    return ("before", "after")


def _said(found: Any) -> dict[str, Any]:
    """Return the part of a document or a response to record, without tokens."""
    if isinstance(found, TokenPair):
        return {"gen": found.gen, "nonce": found.nonce}
    if isinstance(found, Lease):
        return {"gen": found.gen, "nonce": found.nonce, "what": found.release_reason or ""}
    if isinstance(found, BankResponse):
        return {"what": found.outcome.value}
    return {}
