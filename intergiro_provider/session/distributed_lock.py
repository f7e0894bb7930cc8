# SPDX-License-Identifier: Apache-2.0
"""A distributed lock: a service gives it to one process of all hosts at a time.

What every such lock has in common. :mod:`.postgres_lock` and :mod:`.redis_lock` know the services; :mod:`.locks` makes
the one that a connection names.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import fingerprint

TTL = 120.0
"""Seconds of silence after which the service takes the lock away: more than any step of a renewal takes."""
CONNECT_TIMEOUT = 5.0
"""Seconds to reach the service, where its connection says nothing else."""
ANSWER_TIMEOUT = 5.0
"""Seconds in which the service has to answer."""
EXTENSIONS = 6
"""How many times within the TTL a waiting holder extends the lock."""


class UnfitError(Exception):
    """The service answers, but cannot give the lock; the text says why."""


class DistributedLock(ABC):
    """A lock in a service, for one renewal; not to be shared by threads.

    Every failure of the service is a :class:`~intergiro_provider.exceptions.StoreUnavailable` that names
    `lock_conn_id`.

    :param conn_id: the connection that `lock_conn_id` names.
    :param service: kind, host, port and database: what makes two locks the same.
    :param name: what is locked: the session's Variable.
    :param password: is never quoted.
    :param ttl: see :data:`TTL`.
    """

    drivers: tuple[str, ...] = ()
    """The packages whose errors may be quoted: they say what failed, and hold no secret."""

    def __init__(self, conn_id: str, service: tuple[str, ...], name: str, password: str | None, ttl: float) -> None:
        self.fingerprint = fingerprint(*service, name)
        self.name = name
        self.ttl = ttl
        self._conn_id = conn_id
        self._where = f"{service[0]} at {service[1]}:{service[2]}"
        self._password = password
        self._asked_at = 0.0
        self._pid = os.getpid()

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; never waits for its holder.

        :raises StoreUnavailable: if the service cannot be asked.
        """
        self._asked_at = time.monotonic()
        self._pid = os.getpid()
        try:
            return self._acquire()
        except Exception as error:
            self._close()
            raise self._unavailable("cannot be used", error) from None

    def check(self) -> None:
        """Check that the lock is still held, and hold it for another TTL.

        :raises StoreUnavailable: if it is not, or the service does not say.
        """
        self._asked_at = time.monotonic()
        try:
            held = self._is_here() and self._confirm()
        except Exception as error:
            raise self._unavailable("was lost during the renewal", error) from None
        if not held:
            raise self._unavailable("was lost during the renewal")

    def keep(self) -> None:
        """During a wait: extend the lock in time. That it was lost shows in :meth:`check`."""
        if time.monotonic() - self._asked_at >= self.ttl / EXTENSIONS:
            with contextlib.suppress(StoreUnavailable):
                self.check()

    def release(self) -> None:
        """Release the lock, if it is held; where that fails, the service takes it back by itself."""
        if self._is_here():
            self._close()

    def _is_here(self) -> bool:
        """Whether this is the process that took it, and not a forked child."""
        return self._pid == os.getpid()

    @abstractmethod
    def _acquire(self) -> bool: ...

    @abstractmethod
    def _confirm(self) -> bool: ...

    @abstractmethod
    def _release(self) -> None: ...

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            self._release()

    def _unavailable(self, what: str, error: Exception | None = None) -> StoreUnavailable:
        # Never chained: a traceback would show the password among the driver's arguments.
        cause = f" ({self._described(error)})" if error is not None else ""
        return StoreUnavailable(
            f"The distributed lock of `lock_conn_id` {self._conn_id!r} ({self._where}) {what}{cause}. The session is "
            "not renewed without it. The task can be retried; check that service's health."
        )

    def _described(self, error: Exception) -> str:
        kind = type(error).__name__
        if isinstance(error, UnfitError):
            return str(error)
        if type(error).__module__.split(".")[0] not in self.drivers:
            return kind
        lines = str(error).strip().splitlines()
        if not lines or (self._password and self._password in lines[0]):
            return kind
        return f"{kind}: {lines[0][:200]}"
