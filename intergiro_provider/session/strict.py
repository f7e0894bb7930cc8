# SPDX-License-Identifier: Apache-2.0
"""The strict lock: one that a service gives to a single process of all hosts at a time.

The connection's extra names it by `lock_conn_id`, an Airflow connection of type ``postgres`` or ``redis``. This module
knows what every such lock has in common and which one a connection stands for; :mod:`.postgres_lock` and
:mod:`.redis_lock` know the services, and are imported only where one is named.
"""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StoreUnavailable
from intergiro_provider.session.documents import fingerprint

TTL = 120.0
"""Seconds of silence after which the service takes the lock away: more than any step of a renewal takes."""
CONNECT_TIMEOUT = 5.0
"""Seconds to reach the service, where its connection says nothing else."""
ANSWER_TIMEOUT = 5.0
"""Seconds in which the service has to answer."""
SHARE_OF_TTL = 6
"""How many times within the TTL a waiting holder is heard of."""


class UnfitError(Exception):
    """The service answers, but cannot give the lock; the text says why."""


class StrictLock(ABC):
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
        """Take the lock if it is free; never waits for somebody else to release it.

        :raises StoreUnavailable: if the service cannot be asked.
        """
        self._asked_at = time.monotonic()
        self._pid = os.getpid()
        try:
            return self._acquire()
        except Exception as error:
            self._let_go_quietly()
            raise self._unavailable("cannot be used", error) from None

    def check(self) -> None:
        """Make sure that the lock is still held, and hold it for another TTL.

        :raises StoreUnavailable: if it is not, or nobody can tell.
        """
        self._asked_at = time.monotonic()
        try:
            held = self._is_here() and self._confirm()
        except Exception as error:
            raise self._unavailable("was lost during the renewal", error) from None
        if not held:
            raise self._unavailable("was lost during the renewal")

    def keep(self) -> None:
        """While waiting: have the service hear of the holder in time. Losing the lock shows in :meth:`check`."""
        if time.monotonic() - self._asked_at >= self.ttl / SHARE_OF_TTL:
            with contextlib.suppress(StoreUnavailable):
                self.check()

    def release(self) -> None:
        """Give the lock back, if it is held; where that fails, the service takes it back by itself."""
        if self._is_here():
            self._let_go_quietly()

    def _is_here(self) -> bool:
        """Whether this is the process that took it, and not a forked child."""
        return self._pid == os.getpid()

    @abstractmethod
    def _acquire(self) -> bool: ...

    @abstractmethod
    def _confirm(self) -> bool: ...

    @abstractmethod
    def _let_go(self) -> None: ...

    def _let_go_quietly(self) -> None:
        with contextlib.suppress(Exception):
            self._let_go()

    def _unavailable(self, what: str, error: Exception | None = None) -> StoreUnavailable:
        # Never chained: a traceback would show the password among the driver's arguments.
        cause = f" ({self._described(error)})" if error is not None else ""
        return StoreUnavailable(
            f"The lock that `lock_conn_id` {self._conn_id!r} names ({self._where}) {what}{cause}. Nothing further was "
            "asked of the bank, and the session is not renewed without the lock. Nothing is lost; the task can be "
            "tried again."
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


def open_lock(conn_id: str, name: str, look_up: Callable[[str], Any], ttl: float = TTL) -> StrictLock:
    """The lock in the service that a connection names; the service is not asked yet.

    :param conn_id: the value of `lock_conn_id`.
    :param name: the session's Variable.
    :param look_up: finds a connection by its id.
    :param ttl: see :data:`TTL`.
    :raises IntergiroValueError: if the connection is of another type, or names no service that can give a lock.
    :raises StoreUnavailable: if it cannot be read, or what its type needs is not installed.
    """
    try:
        connection = look_up(conn_id)
        extra = connection.extra_dejson
    except IntergiroError:
        raise
    except Exception as error:
        # It may be there all the same: with the metadata database down the answer is "not found", too.
        raise StoreUnavailable(
            f"The connection {conn_id!r}, which `lock_conn_id` names, cannot be read ({type(error).__name__}). Nothing "
            "was asked of the bank. Create it, or correct `lock_conn_id`."
        ) from None
    kind = connection.conn_type
    if kind not in ("postgres", "redis"):
        raise IntergiroValueError(
            f"`lock_conn_id` names the connection {conn_id!r} of type {kind!r}; only one of type postgres or redis can "
            "give a lock."
        )
    if not connection.host or not isinstance(extra, Mapping):
        raise IntergiroValueError(
            f"The connection {conn_id!r}, which `lock_conn_id` names, must name the host of one service for all "
            "workers, and its extra must be a JSON object."
        )
    try:
        if kind == "postgres":
            from intergiro_provider.session.postgres_lock import PostgresLock

            return PostgresLock(connection, conn_id, name, ttl)
        from intergiro_provider.session.redis_lock import RedisLock

        return RedisLock(connection, conn_id, name, ttl)
    except ImportError as error:
        raise StoreUnavailable(
            f"`lock_conn_id` names the {kind} connection {conn_id!r}, but what that needs is not installed here "
            f"({error.name or type(error).__name__}): pip install 'airflow-provider-intergiro[{kind}]' on every worker "
            "and in the triggerer."
        ) from None
