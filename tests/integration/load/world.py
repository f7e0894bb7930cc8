# SPDX-License-Identifier: Apache-2.0
"""A list in memory, real pulls of it, and the databases to load into."""

from __future__ import annotations

import functools
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.load import open_warehouse
from intergiro_provider.load.source import Source
from intergiro_provider.load.steps import load
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from scripts import services
from tests.unit.pull.lists import pages_of

DAYS = [f"2026-01-{day:02d}" for day in range(1, 31)]


def record(number: int, day: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a transaction; `fields` replace or extend its fields."""
    return {
        "id": f"t{number:05d}",
        "amount": 1000 + number,
        "currency": "EUR",
        "status": "pending",
        "account_id": f"a{number % 3}",
        "counterparty": {"name": 'Åsa "O"\n\\', "iban": None},
        "created_at": f"{DAYS[day]}T{number % 24:02d}:00:00.{number % 1000:03d}Z",
        **fields,
    }


class Bank:
    """A list with filters by creation time and pages by `starting_after`. Tests change `records` between pulls.

    :param records: dicts, or bytes that are sent as they are.
    """

    def __init__(self, *records: Any) -> None:
        self.records = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]

    def __call__(self, query: dict[str, Any]) -> bytes:
        found = sorted(map(json.loads, self.records), key=lambda one: (one.get("created_at", ""), one["id"]))
        raw = {json.loads(each)["id"]: each for each in self.records}
        low, high, after = query.get("created_from"), query.get("created_to"), query.get("starting_after")
        ids = [each["id"] for each in found if not low or _moment(low) <= _moment(each["created_at"]) <= _moment(high)]
        start = ids.index(after) + 1 if after else 0
        page = ids[start : start + int(query.get("limit") or 100)]
        more = json.dumps(start + len(page) < len(ids))
        return b'{"data":[' + b",".join(raw[each] for each in page) + b'],"has_more":' + more.encode() + b"}"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def pull(path: Path, bank: Any, days: tuple[str, str] | None = None, **request: Any) -> Manifest:
    """Pull a list into a directory."""
    arguments = {"endpoint": "transactions", "interval": parse_interval(*(days or (None, None))), **request}
    return Pull(PullRequest(**arguments), pages_of(bank), Target(Directory(LocalFileSystem(), str(path)), "")).run()


class Engine:
    """A database to load into.

    :param where: `database` or `sql_conn_id` of the operator. :param schema: the prefix of a table's name.
    """

    def __init__(self, kind: str, where: dict[str, str], schema: str = "") -> None:
        self.kind = kind
        self.where = where
        self.schema = schema
        self.is_duck = kind == "duckdb"

    def table(self, name: str = "transactions") -> str:
        return f"{self.schema}.{name}" if self.schema else name

    def load(self, path: Path, name: str = "transactions", **options: Any) -> dict[str, Any]:
        """Load the result at a path. Return the counts of the load, without the fields that differ in each run."""
        warehouse = open_warehouse(self.table(name), **{**self.where, **options})
        loaded = load(warehouse, Source(Directory(LocalFileSystem(), str(path)))).to_dict()
        return {key: value for key, value in loaded.items() if key not in ("seconds", "table", "pull_id")}

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows. `{t}` in it is the table's name without its suffix."""
        statement = statement.replace("{t}", self.table())
        if self.is_duck:
            import duckdb

            with duckdb.connect(self.where["database"]) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                return list(connection.execute(statement).fetchall())
        connection = psycopg2.connect(**_dsn(self.where["sql_conn_id"]))
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def types(self, name: str = "transactions") -> dict[str, str]:
        """Return the types of a table's columns, by name."""
        if self.is_duck:
            return {row[0]: row[1] for row in self.ask(f"DESCRIBE {self.table(name)}")}
        return dict(
            self.ask(  # type: ignore[arg-type]
                f"SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = "
                f"'{self.table(name)}'::regclass AND attnum > 0 AND NOT attisdropped"
            )
        )


def _dsn(conn_id: str) -> dict[str, Any]:
    described = json.loads(os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"])
    return {
        "host": described["host"],
        "port": described["port"],
        "user": described["login"],
        "password": described["password"],
        "dbname": described["schema"],
    }


def postgres_engine(server: services.Postgres, kind: str) -> Engine:
    """Return an engine with a new schema on a server."""
    os.environ["AIRFLOW_CONN_LOAD_WAREHOUSE"] = server.connection_json()
    engine = Engine(kind, {"sql_conn_id": "load_warehouse"}, f"s_{uuid.uuid4().hex[:12]}")
    engine.ask(f"CREATE SCHEMA {engine.schema}")
    return engine


@functools.cache
def has_psycopg3() -> bool:
    """Return whether Airflow's hook also supports psycopg 3. Cached, because tests change the driver."""
    from airflow.providers.postgres.hooks import postgres

    return bool(getattr(postgres, "USE_PSYCOPG3", False))


@contextmanager
def hook_with(driver: str) -> Iterator[None]:
    """Make Airflow's hook use this driver: psycopg2, or psycopg 3 if it is supported."""
    from airflow.providers.postgres.hooks import postgres

    if not has_psycopg3():
        import pytest

        if driver == "psycopg3":
            pytest.skip("this version of the hook has psycopg2 only")
        yield
        return
    postgres.USE_PSYCOPG3 = driver == "psycopg3"
    try:
        yield
    finally:
        postgres.USE_PSYCOPG3 = True
