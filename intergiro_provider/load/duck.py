# SPDX-License-Identifier: Apache-2.0
"""DuckDB, in a file. The only module that imports duckdb: import it inside functions."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb  # type: ignore[import-not-found,unused-ignore]

from intergiro_provider.exceptions import IntergiroValueError, LoadError
from intergiro_provider.load.duck_types import STORED, TYPES, converted, filled, kind_of, sql_of
from intergiro_provider.load.source import Source, descriptor_path
from intergiro_provider.load.target import Target, is_fit, literal, quoted
from intergiro_provider.load.warehouse import STAGE, Warehouse
from intergiro_provider.pull.rows import has_text, rewritten
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

log = logging.getLogger(__name__)

_POLL = 0.1
_CREATION = 3.0  # seconds
_WITHOUT_VALUES = (
    "BinderException",
    "CatalogException",
    "ConnectionException",
    "DependencyException",
    "IOException",
    "OutOfMemoryException",
    "PermissionException",
)
"""Errors whose messages name files, tables and columns, but no value of a row."""


class Duck(Warehouse):
    """See :class:`~.warehouse.Warehouse`.

    :param database: the file. :param lock_timeout: seconds to wait for another process that has the file open.
    """

    types = TYPES

    def __init__(self, target: Target, database: str, lock_timeout: float) -> None:
        super().__init__(target)
        self._database = database
        self._lock_timeout = lock_timeout
        self._connection: Any = None
        self._stack = ExitStack()

    @contextmanager
    def session(self) -> Iterator[None]:
        with self._stack:
            self._connection = connection = self._connect()
            self._stack.callback(connection.close)
            connection.execute("SET TimeZone = 'UTC'")
            self.execute("BEGIN")
            yield
            self.execute("COMMIT")

    def _connect(self) -> Any:
        folder, name = Path(self._database).parent, Path(self._database).stem
        if self.target.schema == name.lower():  # DuckDB refuses `name.table` as ambiguous
            raise IntergiroValueError(
                f"`table`: the schema in {self.target.name} has the name of the DuckDB file {self._database}; give the "
                "file or the schema another name"
            )
        if not folder.is_dir():
            raise IntergiroValueError(f"`database`: there is no directory {folder}")
        deadline, told = time.monotonic() + self._lock_timeout, False
        while True:
            try:
                return duckdb.connect(self._database)
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error) and not self._may_be_incomplete():
                    raise
            if time.monotonic() >= deadline:
                raise LoadError(
                    f"`database`: {self._database} was in use by another process for {self._lock_timeout:g} s "
                    "(`lock_timeout`). DuckDB allows one writer: close the file there, or put the tasks that "
                    "use it into an Airflow pool with one slot"
                )
            if not told:
                log.info("%s is in use by another process; waiting.", self._database)
                told = True
            time.sleep(_POLL)

    def _may_be_incomplete(self) -> bool:
        """Return whether another process may be creating the file, which is no valid database until then."""
        file = Path(self._database)
        return file.exists() and time.time() - file.stat().st_mtime < _CREATION

    def dataset(self) -> tuple[str, str]:
        return f"duckdb://{self._database}", f"{self.target.schema or 'main'}.{self.target.bare}"

    def execute(self, statement: str, *parameters: Any) -> Any:
        return self._connection.execute(statement, list(parameters))

    def count(self, statement: str, *parameters: Any) -> int:
        return int(self.execute(statement, *parameters).fetchone()[0])

    def columns(self, table: str) -> dict[str, Type] | None:
        # A query, because an error would end the transaction.
        schema, _, name = table.replace('"', "").rpartition(".")
        there = self.execute(
            "SELECT 1 FROM information_schema.tables WHERE table_catalog = current_database() AND table_schema = ? "
            "AND table_name = ?",
            schema or "main",
            name,
        )
        if there.fetchone() is None:
            return None
        found = self.execute(f"SELECT * FROM {table} LIMIT 0").description
        types = ((name, kind_of(type_)) for name, type_, *_ in found)
        return {name: kind for name, kind in types if kind is not None}

    def normal(self, type_: Type) -> Type:
        match type_:
            case StructOf(fields):
                if not all(map(is_fit, fields)) or len({name.lower() for name in fields}) < len(fields):
                    return Kind.JSON
                # A STRUCT has no fields without a type. The field is added when it has a value.
                kinds = {name: self.normal(inner) for name, inner in fields.items()}
                kept: dict[str, Type] = {name: kind for name, kind in kinds.items() if kind is not Kind.NULL}
                return StructOf(kept) if kept else Kind.NULL
            case ListOf(element):
                kind = self.normal(element)
                return Kind.NULL if kind is Kind.NULL else ListOf(kind)
        return type_

    def accepts(self, name: str, columns: Collection[str]) -> bool:
        return super().accepts(name, columns) and name.lower() not in map(str.lower, columns)

    def sql(self, type_: Type) -> str:
        return sql_of(type_)

    def converted(self, column: str, had: Type, wanted: Type) -> str:
        return converted(column, had, wanted)

    def stage(self, source: Source, columns: Mapping[str, Type]) -> None:
        if not source.manifest.parts:
            self.execute(f"CREATE OR REPLACE TEMP VIEW {STAGE} AS SELECT NULL::VARCHAR AS id WHERE false")
            return
        if source.is_parquet:
            names = ", ".join(map(literal, source.files(self._stack)))
            selected = ", ".join(
                f"{self._read(name, source, type_)} AS {quoted(name)}" for name, type_ in columns.items()
            )
            self.execute(
                f"CREATE OR REPLACE TEMP VIEW {STAGE} AS SELECT {selected} FROM read_parquet([{names}], "
                # Otherwise a directory `currency=SEK` would replace the column `currency`.
                "hive_partitioning = false)"
            )
        else:
            self._stage_lines(source, columns)
        source.check_rows(self.execute(f"SELECT count(*) FROM {STAGE}").fetchone()[0])

    def _read(self, name: str, source: Source, wanted: Type) -> str:
        """Return an expression that converts a column of Parquet files to the target's type."""
        found = filled(source.fields[name], wanted)
        column = quoted(name)
        if has_text(found) or found != source.fields[name]:
            column = f"CAST({column} AS {sql_of(found)})"
        return converted(column, found, wanted)

    def _stage_lines(self, source: Source, columns: Mapping[str, Type]) -> None:
        # Each value is read as the type of its column, so that it does not depend on the other records of the pull.
        as_strings = has_text(StructOf(dict(columns)))
        with tempfile.TemporaryFile() as file:  # has no name, so it disappears with this process
            longest = 0
            for block in source.blocks():
                longest = max(longest, len(block))
                file.write(rewritten(block, columns) if as_strings else block)
            file.flush()
            described = ", ".join(
                f"{literal(name)}: {literal(sql_of(type_, STORED))}" for name, type_ in columns.items()
            )
            selected = ", ".join(
                (f"CAST({quoted(name)} AS {sql_of(type_)}) AS " if has_text(type_) else "") + quoted(name)
                for name, type_ in columns.items()
            )
            self.execute(
                f"CREATE OR REPLACE TEMP TABLE {STAGE} AS SELECT {selected} "
                f"FROM read_json({literal(descriptor_path(file))}, format = 'newline_delimited', "
                f"compression = 'uncompressed', columns = {{{described}}}, "
                f"maximum_object_size = {2 * longest + (1 << 20)})"
            )

    def fill(self, source: Source, columns: Mapping[str, Type]) -> bool:
        self.stage(source, columns)
        self.refuse_repeated_ids()
        table = self.target.table
        if self.execute(f"SELECT 1 FROM {STAGE} s JOIN {table} t ON t.id = s.id LIMIT 1").fetchone() is not None:
            return False
        names = ", ".join(map(quoted, columns))
        self.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {STAGE}")
        return True

    def merge(self, columns: Mapping[str, Type], staged: Mapping[str, Type], stamp: tuple[str, str]) -> tuple[int, int]:
        table = self.target.table
        names = ", ".join(map(quoted, columns))
        new = ", ".join(f"s.{quoted(name)}" if name in staged else "NULL" for name in columns)
        differs = " OR ".join(
            f"t.{quoted(name)} IS DISTINCT FROM {f's.{quoted(name)}' if name in staged else 'NULL'}"
            for name in columns
            if name != "id"
        )
        self.execute(
            f"CREATE TEMP TABLE _intergiro_new AS SELECT s.*, t.id IS NULL AS _is_new FROM {STAGE} s "
            f"LEFT JOIN {table} t ON t.id = s.id WHERE t.id IS NULL OR {differs or 'false'}"
        )
        changed = self.count(f"DELETE FROM {table} WHERE id IN (SELECT id FROM _intergiro_new WHERE NOT _is_new)")
        total = self.count(f"INSERT INTO {table} ({names}) SELECT {new} FROM _intergiro_new s")
        if self.target.history:
            for operation, condition in (("insert", "_is_new"), ("update", "NOT _is_new")):
                rows = f"{table} WHERE id IN (SELECT id FROM _intergiro_new WHERE {condition})"
                self.append_history(columns, rows, stamp, operation)
        return total - changed, changed

    def explain(self, error: Exception) -> str | None:
        if not isinstance(error, duckdb.Error):
            return None
        name = type(error).__name__
        return f"{name}: {str(error).splitlines()[0].rstrip('.')}" if name in _WITHOUT_VALUES else name
