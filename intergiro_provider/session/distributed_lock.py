# SPDX-License-Identifier: Apache-2.0
"""A distributed lock, which one process of all hosts can hold at a time.

This module has what all such locks share. :mod:`.postgres_lock` and :mod:`.redis_lock` use the services, and
:mod:`.locks` creates the lock that a connection names.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.documents import fingerprint

TTL = 120.0
"""Seconds without a check after which the service releases the lock: longer than any step of a renewal."""
CONNECT_TIMEOUT = 5.0
"""Seconds to connect to the service, unless its connection sets another value."""
RESPONSE_TIMEOUT = 5.0
"""Seconds to wait for a response of the service."""
EXTENSIONS = 6
"""How often within the TTL a waiting holder extends the lock."""


class UnfitError(Exception):
    """The service responds, but cannot provide a lock. The text says why."""


class DistributedLock(ABC):
    """A lock in a service, for one renewal. Threads must not share it.

    Every failure of the service is a :class:`~intergiro_provider.exceptions.StoreUnavailable` that names
    `lock_conn_id`.

    :param conn_id: the connection that `lock_conn_id` names.
    :param service: kind, host, port and database; locks with the same values and name are the same lock.
    :param name: the session's Variable, which is locked.
    :param password: never shown in a message.
    :param ttl: see :data:`TTL`.
    """

    drivers: tuple[str, ...] = ()
    """Packages whose error texts may be shown: they contain no secret."""

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
        """Acquire the lock if it is free; return whether it is acquired. Do not wait for its holder.

        :raises StoreUnavailable: the service cannot be used.
        """
        self._asked_at = time.monotonic()
        self._pid = os.getpid()
        try:
            return self._acquire()
        except Exception as error:
            self._close()
            raise self._unavailable("cannot be used", error) from None

    def check(self) -> None:
        """Check that the lock is still held, and extend it by a TTL.

        :raises StoreUnavailable: it is not held, or the service does not respond.
        """
        self._asked_at = time.monotonic()
        try:
            held = self._is_here() and self._confirm()
        except Exception as error:
            raise self._unavailable("was lost during the renewal", error) from None
        if not held:
            raise self._unavailable("was lost during the renewal")

    def keep(self) -> None:
        """Extend the lock during a wait, if it is time. A lost lock is reported by :meth:`check`."""
        if time.monotonic() - self._asked_at >= self.ttl / EXTENSIONS:
            with contextlib.suppress(StoreUnavailable):
                self.check()

    def release(self) -> None:
        """Release the lock, if it is held. If that fails, the service releases it after the TTL."""
        if self._is_here():
            self._close()

    def _is_here(self) -> bool:
        """Return whether this process acquired it, and not its parent."""
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
