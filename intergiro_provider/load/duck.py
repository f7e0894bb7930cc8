# SPDX-License-Identifier: Apache-2.0
"""DuckDB, in a file. The only module that imports duckdb: import it inside functions."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb  # type: ignore[import-not-found,unused-ignore]

from intergiro_provider.exceptions import IntergiroValueError, LoadError
from intergiro_provider.load.source import Source, descriptor_path
from intergiro_provider.load.target import Target, literal, quoted
from intergiro_provider.load.warehouse import STAGE, Warehouse
from intergiro_provider.pull.rows import has_text, rewritten
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

log = logging.getLogger(__name__)

_KINDS = {
    "BOOLEAN": Kind.BOOLEAN,
    "BIGINT": Kind.INT64,
    "HUGEINT": Kind.INT128,
    "DOUBLE": Kind.DOUBLE,
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMP,
    "VARCHAR": Kind.STRING,
    "JSON": Kind.JSON,
}
_POLL = 0.1


class Duck(Warehouse):
    """See :class:`~.warehouse.Warehouse`.

    :param database: the file. :param lock_timeout: seconds to wait for another process that has it open.
    """

    types = {  # noqa: RUF012
        Kind.BOOLEAN: "BOOLEAN",
        Kind.INT53: "BIGINT",
        Kind.INT64: "BIGINT",
        Kind.INT128: "HUGEINT",
        Kind.DOUBLE: "DOUBLE",
        Kind.TIMESTAMP: "TIMESTAMPTZ",
        Kind.STRING: "VARCHAR",
        Kind.JSON: "JSON",
    }

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
                if "lock" not in str(error):
                    raise
            if time.monotonic() >= deadline:
                raise LoadError(
                    f"`database`: {self._database} was in use by another process for {self._lock_timeout:g} s "
                    "(`lock_timeout`). DuckDB allows one writer: close what has the file open, or put the tasks that "
                    "use it into an Airflow pool with one slot"
                )
            if not told:
                log.info("%s is in use by another process; waiting.", self._database)
                told = True
            time.sleep(_POLL)

    def dataset(self) -> tuple[str, str]:
        return f"duckdb://{self._database}", f"{self.target.schema or 'main'}.{self.target.bare}"

    def execute(self, statement: str, *parameters: Any) -> Any:
        return self._connection.execute(statement, list(parameters))

    def count(self, statement: str, *parameters: Any) -> int:
        return int(self.execute(statement, *parameters).fetchone()[0])

    def columns(self, table: str) -> dict[str, Type] | None:
        # Not by an error: that would end the transaction.
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
        types = ((name, _kind(type_)) for name, type_, *_ in found)
        return {name: kind for name, kind in types if kind is not None}

    def normal(self, type_: Type) -> Type:
        match type_:
            case StructOf(fields):
                # No structure has a field without a type: it gets one when a value comes.
                kinds = {name: self.normal(inner) for name, inner in fields.items()}
                kept: dict[str, Type] = {name: kind for name, kind in kinds.items() if kind is not Kind.NULL}
                return StructOf(kept) if kept else Kind.NULL
            case ListOf(element):
                kind = self.normal(element)
                return Kind.NULL if kind is Kind.NULL else ListOf(kind)
        return type_

    def sql(self, type_: Type) -> str:
        return _sql(type_, self.types)

    def converted(self, column: str, had: Type, wanted: Type) -> str:
        if self.sql(had) == self.sql(wanted):
            return column
        if wanted is Kind.JSON:
            return f"to_json({column})"
        if had is Kind.TIMESTAMP and wanted is Kind.STRING:
            return f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%fZ')"
        if has_text(wanted):  # by way of JSON: a plain cast takes each string for the text of a JSON value
            return f"CAST(to_json({column}) AS {self.sql(wanted)})"
        return f"CAST({column} AS {self.sql(wanted)})"

    def stage(self, source: Source, columns: Mapping[str, Type]) -> None:
        if not source.manifest.parts:
            self.execute(f"CREATE OR REPLACE TEMP VIEW {STAGE} AS SELECT NULL::VARCHAR AS id WHERE false")
            return
        if source.is_parquet:
            names = ", ".join(map(literal, source.files(self._stack)))
            # Types as the files have them, which keep JSON in strings.
            selected = ", ".join(
                f"{self._read(name, source.fields[name], type_)} AS {quoted(name)}" for name, type_ in columns.items()
            )
            self.execute(f"CREATE OR REPLACE TEMP VIEW {STAGE} AS SELECT {selected} FROM read_parquet([{names}])")
        else:
            self._stage_lines(source, columns)
        source.check_rows(self.execute(f"SELECT count(*) FROM {STAGE}").fetchone()[0])

    def _read(self, name: str, found: Type, wanted: Type) -> str:
        """An expression for a column of the files as the target has it."""
        column, stored, found = quoted(name), found, self.normal(found)
        if has_text(found) or found != stored:  # else a structure keeps fields that the table has not
            column = f"CAST({column} AS {self.sql(found)})"
        return self.converted(column, found, wanted)

    def _stage_lines(self, source: Source, columns: Mapping[str, Type]) -> None:
        found = {name: self.normal(type_) for name, type_ in source.fields.items()}
        as_strings = has_text(StructOf(found))
        with tempfile.TemporaryFile() as file:  # has no name, so that it ends with this process
            longest = 0
            for block in source.blocks():
                longest = max(longest, len(block))
                file.write(rewritten(block, source.fields) if as_strings else block)
            file.flush()
            strings = {**self.types, Kind.JSON: "VARCHAR", Kind.INT128: "VARCHAR"}
            described = ", ".join(
                f"{literal(name)}: {literal(_sql(type_, strings))}"
                for name, type_ in found.items()
                if type_ is not Kind.NULL
            )
            selected = ", ".join(
                f"{self._read(name, source.fields[name], type_)} AS {quoted(name)}" for name, type_ in columns.items()
            )
            self.execute(
                f"CREATE OR REPLACE TEMP TABLE {STAGE} AS SELECT {selected} "
                f"FROM read_json({literal(descriptor_path(file))}, format = 'newline_delimited', "
                f"compression = 'uncompressed', columns = {{{described}}}, "
                f"maximum_object_size = {2 * longest + (1 << 20)})"
            )

    def fill(self, source: Source, columns: Mapping[str, Type]) -> bool:
        self.stage(source, columns)
        self._refuse_repeated_ids()
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
        self._refuse_repeated_ids()
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

    def _refuse_repeated_ids(self) -> None:
        rows, ids = self.execute(f"SELECT count(*), count(DISTINCT id) FROM {STAGE}").fetchone()
        if rows != ids:
            raise LoadError(f"{self.target.name}: the pull holds {rows - ids} record(s) twice; pull the interval again")

    def explain(self, error: Exception) -> str | None:
        return type(error).__name__ if isinstance(error, duckdb.Error) else None


def _sql(type_: Type, types: Mapping[Kind, str]) -> str:
    match type_:
        case StructOf(fields):
            return f"STRUCT({', '.join(f'{quoted(name)} {_sql(inner, types)}' for name, inner in fields.items())})"
        case ListOf(element):
            return f"{_sql(element, types)}[]"
        case Kind():
            return types[type_]


def _kind(type_: Any) -> Type | None:
    """The type of a column, as DuckDB describes it; None if it is none of ours."""
    if type_.id == "struct":
        fields: dict[str, Type] = {}
        for name, inner in type_.children:
            if (kind := _kind(inner)) is None:
                return None
            fields[name] = kind
        return StructOf(fields)
    if type_.id == "list":
        kind = _kind(type_.children[0][1])
        return None if kind is None else ListOf(kind)
    return _KINDS.get(str(type_))
