# SPDX-License-Identifier: Apache-2.0
"""CREATE TABLE AS from Parquet, and INSERT of later rows: the cost of the rows in DuckDB itself."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.pullers.clock import LoadJob, run


def prepare(job: LoadJob) -> Callable[[], None]:
    """Import DuckDB."""
    import duckdb

    def load() -> None:
        with duckdb.connect(job.database) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {job.schema}")
            there = "SELECT 1 FROM information_schema.tables WHERE table_schema = ?"
            new = connection.execute(there, [job.schema]).fetchone() is None
            start = f"CREATE TABLE {job.table} AS" if new else f"INSERT INTO {job.table} BY NAME"
            connection.execute(f"{start} SELECT * FROM read_parquet('{job.path}/*.parquet')")

    return load


if __name__ == "__main__":
    run(prepare, LoadJob)
