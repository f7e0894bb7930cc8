# SPDX-License-Identifier: Apache-2.0
"""The storm stack with Celery: Redis, PostgreSQL, and workers that share no lock file, as on separate hosts."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from scripts import services
from scripts.leaks import postgres_cells, redis_values
from scripts.storm_figures import Plan
from scripts.storm_stack import Stack

#: The Airflow connections that `lock_conn_id` may name, by the type of their service.
LOCKS = {"redis": "lock_redis", "postgres": "lock_postgres"}


class CeleryStack(Stack):
    """An Airflow with CeleryExecutor and its servers, and a sandbox; `with` starts and ends them."""

    title = "CeleryExecutor on Redis, PostgreSQL"

    def __init__(
        self, home: Path, slots: int = 8, progress: Callable[[str], None] = lambda message: None, hosts: int = 2
    ) -> None:
        """Take AIRFLOW_HOME, how many tasks run at once, and over how many workers they are spread."""
        self.servers = contextlib.ExitStack()
        self.hosts = hosts
        progress("starting Redis and PostgreSQL")
        try:
            self.redis = self.servers.enter_context(services.redis(services.Redis))
            self.postgres = self.servers.enter_context(services.postgres(services.Postgres, max_connections=200))
            super().__init__(home, slots, progress)
        except BaseException:
            self.servers.close()
            raise

    def environment(self) -> dict[str, str]:
        """Return Airflow's settings."""
        database = f"postgres:{self.postgres.password}@127.0.0.1:{self.postgres.port}/postgres"
        secret = f":{self.redis.password}@" if self.redis.password else ""
        return {
            **super().environment(),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            # Airflow 3.1 leaves both empty in the airflow.cfg that it makes, and then each process has its own.
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://{secret}127.0.0.1:{self.redis.port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(self.slots // self.hosts),
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
        }

    def workers(self) -> dict[str, dict[str, str]]:
        """Return the workers: each has its lock files in a directory of its own."""
        found = {}
        for number in range(1, self.hosts + 1):
            directory = self.home / "hosts" / f"host-{number}"
            directory.mkdir(parents=True, exist_ok=True)
            found[f"worker-{number}"] = {"TMPDIR": str(directory)}
        return found

    def __enter__(self) -> Self:
        """Start everything."""
        super().__enter__()
        for conn_id, server in zip(LOCKS.values(), (self.redis, self.postgres), strict=True):
            self.airflow.rest.put_connection(conn_id, **server.connection())
        return self

    def __exit__(self, *failure: object) -> None:
        """End everything."""
        try:
            super().__exit__(*failure)
        finally:
            self.servers.close()

    def connection(self, plan: Plan) -> dict[str, Any]:
        """Return the extra of a storm's connection."""
        return {**super().connection(plan), **({"lock_conn_id": LOCKS[plan.lock]} if plan.lock else {})}

    def cells(self, table: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield every value of the metadata database and of the broker, or of one table."""
        with contextlib.closing(self.postgres.connect()) as connection:
            yield from postgres_cells(connection, table)
        if not table:
            yield from redis_values(self.redis.client())
