# SPDX-License-Identifier: Apache-2.0
"""Create the distributed lock that a connection names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StoreUnavailable
from intergiro_provider.session.distributed_lock import TTL, DistributedLock


def open_lock(conn_id: str, name: str, look_up: Callable[[str], Any], ttl: float = TTL) -> DistributedLock:
    """Return the lock that a connection names, without contacting its service.

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
        # The connection may exist: while the metadata database is down, the result is "not found" too.
        raise StoreUnavailable(
            f"The connection {conn_id!r}, which `lock_conn_id` names, cannot be read ({type(error).__name__}). No "
            "request was sent to the bank. Create the connection, or correct `lock_conn_id`."
        ) from None
    kind = connection.conn_type
    if kind not in ("postgres", "redis"):
        raise IntergiroValueError(
            f"`lock_conn_id` names the connection {conn_id!r} of type {kind!r}; its type must be postgres or redis."
        )
    if not connection.host or not isinstance(extra, Mapping):
        raise IntergiroValueError(
            f"The connection {conn_id!r}, which `lock_conn_id` names, must name the host of one service for all "
            "workers, and its extra must be a JSON object."
        )
    try:
        if kind == "postgres":
            from airflow.providers.postgres.hooks.postgres import PostgresHook

            from intergiro_provider.session.postgres_lock import PostgresLock

            return PostgresLock(PostgresHook, connection, conn_id, name, ttl)
        from intergiro_provider.session.redis_lock import RedisLock

        return RedisLock(connection, conn_id, name, ttl)
    except ImportError as error:
        raise StoreUnavailable(
            f"`lock_conn_id` names the {kind} connection {conn_id!r}, but a package for it is not installed here "
            f"({error.name or type(error).__name__}): pip install 'airflow-provider-intergiro[{kind}]' on every worker "
            "and in the triggerer."
        ) from None
