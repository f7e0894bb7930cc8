# SPDX-License-Identifier: Apache-2.0
"""The locks of one renewal: the host's lock file, then the distributed lock if one is configured.

With these locks few processes compete for the lease. With a distributed lock, the lease also needs no waiting times. A
process that waits for a lock reads the store regularly, and stops waiting when another process has stored a pair.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import TokenPair
from intergiro_provider.session.effects import Abandoned
from intergiro_provider.session.errors import waited_too_long
from intergiro_provider.session.lock_file import LockFile
from intergiro_provider.session.timings import Timings

log = logging.getLogger("intergiro_provider.session")

ATTEMPTS = 3
"""Failures of the distributed lock's service in a row after which the renewal fails."""
SHORTER = 8
"""The first pause under a distributed lock is this many times shorter than the longest: renewals are quick."""

ReadPair = Callable[[], TokenPair | None]


class RenewalLocks:
    """The locks that a process acquires before it renews the session.

    :param name: the session's name, which is locked.
    :param open_lock: creates the distributed lock; None: there is none.
    :param abandoned: set when the caller no longer wants the session.
    """

    def __init__(
        self, name: str, timings: Timings, open_lock: Callable[[], DistributedLock] | None, abandoned: threading.Event
    ) -> None:
        self._file = LockFile(name)
        self._timings = timings
        self._open_lock = open_lock
        self._abandoned = abandoned
        self._distributed: DistributedLock | None = None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the distributed lock, once it is acquired; None: there is none."""
        return self._distributed.fingerprint if self._distributed is not None else None

    def acquire(self, read_pair: ReadPair, began: float) -> TokenPair | None:
        """Acquire the locks. Return None, or the pair that another process stores before they are acquired.

        :param read_pair: reads the store; returns a pair that the caller can use, or None.
        :param began: monotonic seconds from which the deadline counts.
        :raises StoreUnavailable: at the deadline, or if the service of the distributed lock is down.
        :raises Abandoned: the caller no longer wants the session.
        """
        # Its holder may hang. The lease guarantees exclusion, so after a while this process continues without the file.
        found = self._wait_for(self._file, read_pair, began, until=time.monotonic() + self._timings.takeover)
        if found is None and self._open_lock is not None:
            # Only now, so that one process of each host at a time uses the service.
            self._distributed = self._open_lock()
            found = self._wait_for(self._distributed, read_pair, began)
        return found

    def release(self) -> None:
        """Release the locks that are held."""
        if self._distributed is not None:
            self._distributed.release()
        self._file.release()

    def check(self) -> None:
        """Check, right before a bank call, that the distributed lock is still held.

        :raises StoreUnavailable: it is not, or the check took so long that it may be lost now.
        """
        if self._distributed is None:
            return
        began = time.monotonic()
        self._distributed.check()
        took, limit = time.monotonic() - began, self._timings.lock_check
        if took > limit:
            raise StoreUnavailable(
                f"The check that the distributed lock of `lock_conn_id` is still held took {took:.1f} s; {limit:.1f} s "
                "is the limit. No request was sent to the bank, and the task can be retried. Use a service that is "
                "nearer to the workers."
            )

    def keep(self) -> None:
        """Extend the distributed lock, before a wait."""
        if self._distributed is not None:
            self._distributed.keep()

    def _wait_for(
        self, lock: LockFile | DistributedLock, read_pair: ReadPair, began: float, until: float | None = None
    ) -> TokenPair | None:
        failures = 0
        pause = self._timings.poll / (SHORTER if self._open_lock is not None else 1)
        while True:
            try:
                if lock.try_acquire():
                    return None
                failures = 0
            except StoreUnavailable:
                failures, pause = failures + 1, self._timings.poll
                if failures >= ATTEMPTS:
                    raise
            if until is not None and time.monotonic() >= until:
                log.warning(
                    "The lock file %s was not free for %.0f s. A process of this host may hang. This task continues "
                    "without the lock file.",
                    self._file.path,
                    self._timings.takeover,
                )
                return None
            if time.monotonic() - began > self._timings.wait:
                raise waited_too_long(self._timings.wait)
            if self._abandoned.wait(pause * random.uniform(0.5, 1.5)):  # noqa: S311
                raise Abandoned
            pause = min(2 * pause, self._timings.poll)
            found = read_pair()
            if found is not None:
                return found
