# SPDX-License-Identifier: Apache-2.0
"""The locks around one renewal: the host's, and inside it the strict one where the connection names one.

They spare the lease most of its contention; the strict lock also spares it its waiting times. Who waits for a lock
looks at the store now and then, and has no use for the lock once somebody else has stored a session.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import Session
from intergiro_provider.session.effects import Abandoned
from intergiro_provider.session.locks import HostLock
from intergiro_provider.session.timings import Timings

ATTEMPTS = 3
"""How many times in a row the service of the strict lock may fail before the renewal does."""
SHORTER = 8
"""The first pause under a strict lock is this much shorter than those from the fourth on: renewals are quick there."""


class Lock(Protocol):
    """A lock among processes. One object for each renewal; nothing but :meth:`try_acquire` raises."""

    def try_acquire(self) -> bool:
        """Take it if it is free; never waits for its holder."""

    def release(self) -> None:
        """Give it back; does nothing where it is not held."""


class StrictLock(Lock, Protocol):
    """A lock that excludes everybody else, wherever they run; see :mod:`.strict`."""

    fingerprint: str

    def check(self) -> None:
        """Make sure that it is still held; :class:`StoreUnavailable` if not."""

    def keep(self) -> None:
        """Called in long waits, so that the lock does not run out."""


class Guard:
    """What protects one renewal.

    :param name: what is locked: the session's Variable.
    :param open_strict: makes the strict lock; None: there is none.
    :param abandoned: set when the caller no longer wants the session.
    """

    def __init__(
        self, name: str, timings: Timings, open_strict: Callable[[], StrictLock] | None, abandoned: threading.Event
    ) -> None:
        self._host = HostLock(name)
        self._timings = timings
        self._open_strict = open_strict
        self._abandoned = abandoned
        self._strict: StrictLock | None = None

    @property
    def fingerprint(self) -> str | None:
        """Tells the strict lock from others, once it is taken; None: there is none."""
        return self._strict.fingerprint if self._strict is not None else None

    def take(self, look: Callable[[], Session | None], began: float) -> Session | None:
        """Take the locks; a session instead if somebody else stores one meanwhile.

        :param look: reads the store; a session if there is one to go on with.
        :param began: monotonic seconds from which the deadline counts.
        :raises StoreUnavailable: at the deadline, or if the service of the strict lock is down.
        :raises Abandoned: if the caller no longer wants it.
        """
        found = self._wait_for(self._host, look, began, "Another process of this host")
        if found is None and self._open_strict is not None:
            # Opened only now: one process of each host at a time asks the service.
            self._strict = self._open_strict()
            found = self._wait_for(self._strict, look, began, "Another task")
        return found

    def release(self) -> None:
        """Give the locks back, whether they were taken or not."""
        if self._strict is not None:
            self._strict.release()
        self._host.release()

    def make_sure(self) -> None:
        """Right before a bank call: the strict lock is held.

        :raises StoreUnavailable: if it is not, or if that took so long that it may be past.
        """
        if self._strict is None:
            return
        began = time.monotonic()
        self._strict.check()
        took, limit = time.monotonic() - began, self._timings.lock_check
        if took > limit:
            raise StoreUnavailable(
                f"Making sure of the lock that `lock_conn_id` names took {took:.1f} s; {limit:.1f} s is the limit. "
                "Nothing further was asked of the bank; the task can be tried again."
            )

    def keep(self) -> None:
        """Before a wait: let the strict lock not run out."""
        if self._strict is not None:
            self._strict.keep()

    def _wait_for(self, lock: Lock, look: Callable[[], Session | None], began: float, who: str) -> Session | None:
        failures = 0
        pause = self._timings.poll / (SHORTER if self._open_strict is not None else 1)
        while True:
            try:
                if lock.try_acquire():
                    return None
                failures = 0
            except StoreUnavailable:
                failures, pause = failures + 1, self._timings.poll
                if failures >= ATTEMPTS:
                    raise
            if time.monotonic() - began > self._timings.wait:
                raise StoreUnavailable(
                    f"{who} has been renewing the Intergiro session for over {self._timings.wait:.0f} s. The task can "
                    "be tried again."
                )
            if self._abandoned.wait(pause * random.uniform(0.5, 1.5)):  # noqa: S311
                raise Abandoned
            pause = min(2 * pause, self._timings.poll)
            found = look()
            if found is not None:
                return found
