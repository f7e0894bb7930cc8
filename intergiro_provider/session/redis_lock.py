# SPDX-License-Identifier: Apache-2.0
"""The distributed lock in Redis: a key that expires. Its value is a token that only the holder knows.

It uses redis-py's lock on its own client, because the client of Airflow's hook has no timeouts. Redis can lose the key
when it fails over to a replica. Then the checks before each bank call and the lease still protect the session, and the
bank accepts a refresh token only once.
"""

from __future__ import annotations

import uuid
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import LockNotOwnedError
from redis.lock import Lock
from redis.retry import Retry

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.session.distributed_lock import CONNECT_TIMEOUT, RESPONSE_TIMEOUT, DistributedLock

TLS = ("ssl", "ssl_cert_reqs", "ssl_ca_certs", "ssl_keyfile", "ssl_certfile", "ssl_check_hostname")


class RedisLock(DistributedLock):
    """See :class:`~intergiro_provider.session.distributed_lock.DistributedLock`.

    :param connection: Airflow connection of type ``redis``.
    :raises IntergiroValueError: if it names a cluster.
    """

    drivers = ("redis",)

    def __init__(self, connection: Any, conn_id: str, name: str, ttl: float) -> None:
        extra = connection.extra_dejson
        if extra.get("cluster"):
            raise IntergiroValueError(
                f"`lock_conn_id` names the Redis cluster {conn_id!r}. Name a single Redis, or a PostgreSQL database."
            )
        # As Airflow's hook reads it.
        password = None if str(connection.password).lower() in ("none", "false", "") else connection.password
        port, database = int(connection.port or 6379), int(extra.get("db") or 0)
        service = ("redis", str(connection.host).lower(), str(port), str(database))
        super().__init__(conn_id, service, name, password, ttl)
        self._client = Redis(
            host=connection.host,
            port=port,
            db=database,
            username=connection.login or None,
            password=password,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=RESPONSE_TIMEOUT,
            # Each wait has one limit; the renewal itself retries.
            retry=Retry(NoBackoff(), 0),
            **{key: extra[key] for key in TLS if extra.get(key) is not None},
        )
        self._lock = Lock(self._client, f"intergiro_lock:{name}", timeout=ttl, blocking=False, thread_local=False)
        self._token = uuid.uuid4().hex.encode()

    def _acquire(self) -> bool:
        # This process also owns the key if an earlier attempt succeeded and its response was lost.
        self._lock.local.token = self._token
        return bool(self._lock.acquire(token=self._token.decode())) or self._lock.owned()

    def _confirm(self) -> bool:
        if self._lock.local.token is None:
            return False
        try:
            # One atomic step: it extends the key only if its token is still this one.
            return self._lock.extend(self.ttl, replace_ttl=True)
        except LockNotOwnedError:
            return False

    def _release(self) -> None:
        try:
            if self._lock.local.token is not None:
                self._lock.release()
        finally:
            self._client.close()
