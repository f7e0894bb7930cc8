# SPDX-License-Identifier: Apache-2.0
"""COPY of a prepared file: the cost of the rows in PostgreSQL itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.pullers.clock import LoadJob, run


def prepare(job: LoadJob) -> Callable[[], None]:
    """Import the driver."""
    import psycopg2

    server = job.postgres or {}
    names = {"host": "host", "port": "port", "user": "login", "password": "password", "dbname": "schema"}

    def load() -> None:
        connection = psycopg2.connect(**{name: server[ours] for name, ours in names.items()})
        with closing(connection), connection.cursor() as cursor, Path(job.path).open("rb") as file:
            cursor.copy_expert(f"COPY {job.table} FROM STDIN (FORMAT csv)", file, 1 << 16)
            connection.commit()

    return load


if __name__ == "__main__":
    run(prepare, LoadJob)
