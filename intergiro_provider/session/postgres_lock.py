# SPDX-License-Identifier: Apache-2.0
"""The distributed lock in PostgreSQL: a transaction that holds an advisory lock.

It is held while the transaction is open. So the server releases it as soon as the holder's connection closes. It works
behind a pooler that assigns a server connection per transaction. Airflow's hook connects, so all options of its
connection work (TLS, IAM tokens, psycopg 2 and 3).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from intergiro_provider.session.distributed_lock import CONNECT_TIMEOUT, RESPONSE_TIMEOUT, DistributedLock, UnfitError

# One round trip. The settings apply to this transaction only, because a pooler reuses the connection.
ACQUIRE = (
    "SELECT pg_is_in_recovery(), pg_try_advisory_xact_lock(%s), set_config('statement_timeout', %s, true), "
    "set_config('idle_in_transaction_session_timeout', %s, true)"
)

LONGEST_CONNECT = 30
"""Upper limit in seconds for the connection's own `connect_timeout`."""

_open: set[PostgresLock] = set()
_left: list[Any] = []
"""Connections of the parent. They must not be finalized in a child: that would close them at the server."""


def _leave_to_parent() -> None:
    for lock in _open:
        lock.leave_to_parent()
    _open.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def key_of(name: str) -> int:
    """Return the key of PostgreSQL's advisory lock for this name: 64 bits, signed."""
    return int.from_bytes(hashlib.sha256(f"intergiro {name}".encode()).digest()[:8], signed=True)


class PostgresLock(DistributedLock):
    """See :class:`~intergiro_provider.session.distributed_lock.DistributedLock`.

    :param hook: Airflow's hook for PostgreSQL, which connects.
    :param connection: Airflow connection of type ``postgres``.
    """

    drivers = ("psycopg", "psycopg2")

    def __init__(self, hook: Callable[..., Any], connection: Any, conn_id: str, name: str, ttl: float) -> None:
        # The extra overrides the fields, because the hook passes it to the driver last.
        named = {
            "host": connection.host,
            "port": connection.port or 5432,
            "dbname": connection.schema or connection.login or "",
            **{key: value for key, value in connection.extra_dejson.items() if value},
        }
        service: tuple[str, ...] = tuple(str(named[part]).lower() for part in ("host", "port", "dbname"))
        if service[0].startswith("/"):
            # A socket in the file system leads to another server on each machine.
            service = (*service, socket.gethostname())
        super().__init__(conn_id, ("postgres", *service), name, connection.password, ttl)
        self._hook = hook
        self._source = connection
        self._key = key_of(name)
        self._connection: Any = None
        self._wire: socket.socket | None = None

    def _acquire(self) -> bool:
        self._connect()
        standby, acquired, *_ = self._execute(
            ACQUIRE, (self._key, str(int(RESPONSE_TIMEOUT * 1000)), str(int(self.ttl * 1000)))
        )
        if not acquired or standby:
            # A waiting task holds no connection: a server may allow fewer connections than there are tasks.
            self._release()
        if standby:
            raise UnfitError("it is a standby, whose locks do not apply to users of the primary")
        return bool(acquired)

    def _confirm(self) -> bool:
        return self._connection is not None and self._execute("SELECT 1")[0] == 1

    def _release(self) -> None:
        connection, wire = self._connection, self._wire
        if connection is None or wire is None:
            return
        try:
            # Before closing: a pooler would discard a server connection with an open transaction.
            self._bounded(connection.rollback)
        finally:
            self._connection = self._wire = None
            _open.discard(self)
            with contextlib.suppress(Exception):
                connection.close()
            wire.close()

    def _connect(self) -> None:
        self._close()
        opened = self._open()
        # psycopg 3 would prepare repeated statements, which fail for the next user of a pooled connection.
        if hasattr(opened, "prepare_threshold"):
            opened.prepare_threshold = None
        # An own descriptor: the driver may close its descriptor at any time, and the number may be reused for a file.
        self._connection, self._wire = opened, socket.socket(fileno=os.dup(opened.fileno()))
        _open.add(self)

    def _open(self) -> Any:
        """Return a connection of the driver without an open transaction."""
        source = self._source
        extra = {key: value for key, value in source.extra_dejson.items() if key != "cursor"}
        extra["connect_timeout"] = min(int(extra.get("connect_timeout") or CONNECT_TIMEOUT), LONGEST_CONNECT)
        extra.setdefault("application_name", "airflow-provider-intergiro")
        connection = type(source)(
            conn_id=self._conn_id,
            conn_type=source.conn_type,
            host=source.host,
            login=source.login,
            password=source.password,
            schema=source.schema,
            port=source.port,
            extra=json.dumps(extra),
        )
        return self._hook(self._conn_id, connection=connection).get_conn()

    def _execute(self, statement: str, parameters: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
        cursor = self._connection.cursor()

        def execute() -> tuple[Any, ...]:
            cursor.execute(statement, parameters)
            return tuple(cursor.fetchone())

        return self._bounded(execute)  # type: ignore[no-any-return]

    def _bounded(self, exchange: Any) -> Any:
        """Run an exchange with the server, and cut the connection if it takes too long.

        The server's statement timeout does not help if the server hangs, or if a pooler queues the request.
        """
        cutter = threading.Timer(RESPONSE_TIMEOUT, _cut, (self._wire,))
        cutter.daemon = True
        cutter.start()
        try:
            return exchange()
        finally:
            cutter.cancel()

    def leave_to_parent(self) -> None:
        """In a forked child, drop the connection without telling the server, which would release the lock.

        Otherwise the child would keep the lock after its parent is killed.
        """
        connection, wire = self._connection, self._wire
        self._connection = self._wire = None
        if connection is None or wire is None:
            return
        _left.append(connection)
        wire.close()
        with contextlib.suppress(Exception):
            # Do not close it: the number could be reused for another file while the driver still uses it.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, connection.fileno(), inheritable=False)
            os.close(nothing)


def _cut(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)
