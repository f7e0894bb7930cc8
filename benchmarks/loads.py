# SPDX-License-Identifier: Apache-2.0
"""Loads into PostgreSQL and DuckDB: ours, what the engine itself needs for prepared data, and dlt, side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.environments import BUILD
from benchmarks.runs import Bank, run_script
from scripts import services

HOME = BUILD / "loads"
MIDDLE = "2026-01-16T00:00:00.000Z"
PULLS = {
    "first": ("2026-01-01T00:00:00.000Z", MIDDLE),
    "again": ("2026-01-01T00:00:00.000Z", MIDDLE),
    "second": (MIDDLE, "2026-01-31T00:00:00.000Z"),
}
"""Into an empty table; the same rows from another pull; as many other rows into that table."""
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off"}
"""So that background work of the server does not fall into one run more than into another."""


@dataclass(frozen=True)
class Loader:
    """What is measured.

    :param script: in ``loaders/``. :param environment: what it runs in.
    :param source: ``jsonl`` or ``parquet``, from a pull; ``csv`` of the same rows.
    :param target: the table that is there beforehand, if any: ``keys`` as ours makes it, ``bare`` its columns only.
    """

    title: str
    script: str
    source: str
    environment: str = "ours"
    steps: tuple[str, ...] = tuple(PULLS)
    target: str = ""


COPIED = Loader("COPY of a prepared CSV", "copy_csv", "csv", steps=("first", "second"), target="keys")
COPIED_BARE = dataclasses.replace(COPIED, title="COPY of a prepared CSV, no key and no index", target="bare")
OURS_LINES = Loader("ours, JSON lines", "ours", "jsonl")
OURS_PARQUET = Loader("ours, Parquet", "ours", "parquet")
DLT_RECORDS = Loader("dlt, records", "dlt_merge", "jsonl", "dlt")
DLT_ARROW = Loader("dlt, Arrow tables made by its user", "dlt_arrow", "jsonl", "dlt")
CREATED = Loader("CREATE TABLE AS, INSERT", "create_table", "parquet", steps=("first", "second"))
DLT_PARQUET = Loader("dlt, Parquet", "dlt_merge", "parquet", "dlt")
LOADERS = {
    "PostgreSQL": (OURS_LINES, COPIED, COPIED_BARE, DLT_RECORDS, DLT_ARROW),
    "DuckDB": (OURS_PARQUET, OURS_LINES, CREATED, DLT_PARQUET),
}


@dataclass(frozen=True)
class Loads:
    """Loads in turns.

    :param times: so many times the rows. :param rounds: at the most.
    """

    title: str
    times: int = 1
    rounds: int = 100

    def measure(self, rows: int, rounds: int, say: Callable[[str], None], with_peers: bool) -> dict[str, Any]:
        """By engine, title and step: medians; by engine a text where it is skipped."""
        shutil.rmtree(HOME, ignore_errors=True)
        found: dict[str, Any] = {}
        try:
            counts = _pull(rows * self.times)
            engines: dict[str, Callable[[], AbstractContextManager[Server | File]]]
            engines = {"PostgreSQL": _postgres, "DuckDB": _duckdb}
            for name, engine in engines.items():
                try:
                    with engine() as warehouse:
                        found[name] = self._measure(name, warehouse, counts, min(rounds, self.rounds), say, with_peers)
                except services.Missing as reason:
                    say(f"{name} is skipped: {reason}")
                    found[name] = str(reason)
        finally:
            shutil.rmtree(HOME, ignore_errors=True)
        return found

    def _measure(
        self, name: str, warehouse: Server | File, counts: dict[str, int], rounds: int, say: Any, with_peers: bool
    ) -> dict[str, Any]:
        runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        for number in range(rounds):
            for order, loader in enumerate(LOADERS[name]):
                if not with_peers and loader.environment != "ours":
                    continue
                schema, state = f"r{number}_{order}", HOME / "state"
                warehouse.begin(schema, loader)
                rows = 0
                for step in loader.steps:
                    job = {"path": str(HOME / loader.source / step), "schema": schema, "state": str(state)}
                    figures = warehouse.run(loader, job)
                    rows += counts[step] if step != "again" else 0
                    if warehouse.count(schema) != rows:
                        raise RuntimeError(f"{loader.title}, {step}: {warehouse.count(schema)} rows, not {rows}")
                    say(
                        f"{name}, {loader.title}, {step}: {figures['cpu'] + figures['server_cpu']:.2f} s of CPU, "
                        f"{figures['wall']:.2f} s, {figures['peak_mb']:.0f} MB"
                    )
                    runs.setdefault(loader.title, {}).setdefault(step, []).append(figures)
                warehouse.end(schema)
                shutil.rmtree(state, ignore_errors=True)
        return {title: {step: _median(each) for step, each in steps.items()} for title, steps in runs.items()}


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]} | {"runs": len(runs)}


def _pull(rows: int) -> dict[str, int]:
    """Pull everything that is loaded; return the rows of each step."""
    with Bank(2 * rows) as bank:
        for file_format in ("jsonl", "parquet"):
            for step, span in PULLS.items():
                bank.write(HOME / file_format / step, span, file_format)
    manifests = {step: (HOME / "jsonl" / step / "_manifest.json").read_text() for step in PULLS}
    return {step: json.loads(text)["rows"] for step, text in manifests.items()}


class Server:
    """PostgreSQL, whose processes' CPU is counted.

    :param server: a server without other users.
    """

    def __init__(self, server: services.Postgres) -> None:
        self._server = server
        connection = server.connect()
        self._postmaster = psutil.Process(psutil.Process(connection.get_backend_pid()).ppid())
        connection.close()

    def prepare(self) -> None:
        """Load once, unmeasured, and write that as CSV."""
        (HOME / "csv").mkdir()
        self.begin("prepared", OURS_LINES)
        for step in ("first", "second"):
            self.run(OURS_LINES, {"path": str(HOME / "jsonl" / step), "schema": "prepared", "state": str(HOME)})
        connection = self._server.connect()
        for step, sign in (("first", "<"), ("second", ">=")):
            with (HOME / "csv" / step).open("wb") as file:
                rows = f"SELECT * FROM prepared.transactions WHERE created_at {sign} '{MIDDLE}' ORDER BY created_at"
                connection.cursor().copy_expert(f"COPY ({rows}) TO STDOUT (FORMAT csv)", file)
        connection.close()
        self._do("TRUNCATE prepared.transactions")

    def begin(self, schema: str, loader: Loader) -> None:
        """Make what has to be there beforehand."""
        self._do(f"CREATE SCHEMA {schema}")
        if loader.target:
            what = "INCLUDING ALL" if loader.target == "keys" else ""
            self._do(f"CREATE TABLE {schema}.transactions (LIKE prepared.transactions {what})")

    def run(self, loader: Loader, job: dict[str, Any]) -> dict[str, float]:
        """Load once; the server is at rest before."""
        self._do("CHECKPOINT")
        written, log = self._written(job["schema"]), self._log()
        cpu = self._cpu()
        said = run_script(f"loaders/{loader.script}", loader.environment, job | {"postgres": self._server.connection()})
        figures = said | {"server_cpu": self._cpu() - cpu, "wal_mb": (self._log() - log) / 1e6}
        figures["written"] = self._written(job["schema"]) - written
        self._do("VACUUM ANALYZE")  # as autovacuum does between two nights
        return figures

    def count(self, schema: str) -> int:
        """The table's rows."""
        return int(self._ask(f"SELECT count(*) FROM {schema}.transactions"))

    def end(self, schema: str) -> None:
        """Drop everything."""
        self._do(f"DROP SCHEMA IF EXISTS {schema}, {schema}_staging CASCADE")

    def _log(self) -> int:
        return int(self._ask("SELECT pg_current_wal_insert_lsn() - '0/0'"))

    def _written(self, schema: str) -> int:
        """Rows inserted, updated or deleted in the table so far."""
        counters = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
        return int(self._ask(f"{counters} WHERE schemaname = '{schema}' AND relname = 'transactions'"))

    def _cpu(self) -> float:
        """Seconds of all processes of the server so far, the ended ones included."""
        while True:
            own = self._postmaster.cpu_times()
            seconds = own.user + own.system
            try:
                for child in self._postmaster.children():
                    times = child.cpu_times()
                    seconds += times.user + times.system
            except psutil.NoSuchProcess:  # ended meanwhile
                continue
            after = self._postmaster.cpu_times()
            ended = after.children_user + after.children_system
            if ended == own.children_user + own.children_system:
                return float(seconds + ended)

    def _do(self, statement: str) -> None:
        connection = self._server.connect()
        connection.cursor().execute(statement)
        connection.close()

    def _ask(self, statement: str) -> Any:
        return self._server.ask(statement)[0][0]


class File:
    """DuckDB, in a file for each loader and round."""

    def _path(self, schema: str) -> Path:
        return HOME / f"file_{schema}.duckdb"

    def begin(self, schema: str, loader: Loader) -> None:
        """Make a schema, as ours needs it."""
        with self._connect(schema) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")

    def run(self, loader: Loader, job: dict[str, Any]) -> dict[str, float]:
        """Load once."""
        database = str(self._path(job["schema"]))
        said = run_script(f"loaders/{loader.script}", loader.environment, job | {"database": database})
        return said | {"server_cpu": 0.0}

    def count(self, schema: str) -> int:
        """The table's rows."""
        with self._connect(schema) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {schema}.transactions").fetchone()[0])

    def end(self, schema: str) -> None:
        """Delete the file."""
        self._path(schema).unlink()

    def _connect(self, schema: str) -> Any:
        import duckdb

        return duckdb.connect(str(self._path(schema)))


@contextmanager
def _postgres() -> Iterator[Server]:
    with services.postgres(services.Postgres, 50, **SETTINGS) as running:
        if not running.own:
            raise services.Missing("initdb is not here, and the CPU of a server that others use cannot be counted")
        server = Server(running)
        server.prepare()
        yield server


@contextmanager
def _duckdb() -> Iterator[File]:
    try:
        import duckdb
    except ImportError as error:
        raise services.Missing(str(error)) from None
    _ = duckdb
    yield File()
