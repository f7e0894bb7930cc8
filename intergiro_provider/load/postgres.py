# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL, through Airflow's hook, with psycopg2 or psycopg 3."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.load.rows import Lines, parquet_rows
from intergiro_provider.load.source import Source
from intergiro_provider.load.target import Target, quoted
from intergiro_provider.load.warehouse import STAGE, Warehouse
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

_KINDS = {
    "boolean": Kind.BOOLEAN,
    "bigint": Kind.INT64,
    "integer": Kind.INT64,
    "numeric": Kind.INT128,
    "double precision": Kind.DOUBLE,
    "timestamp with time zone": Kind.TIMESTAMP,
    "text": Kind.STRING,
    "jsonb": Kind.JSON,
}
_READ_SIZE = 1 << 16
_MAX_NAME = 63  # bytes; PostgreSQL cuts longer names
_SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


class Postgres(Warehouse):
    """See :class:`~.warehouse.Warehouse`.

    :param hook: Airflow's PostgresHook. :param lock_timeout: seconds to wait for another load of this table.
    """

    mark = "%s"
    types = {  # noqa: RUF012
        Kind.BOOLEAN: "boolean",
        Kind.INT53: "bigint",
        Kind.INT64: "bigint",
        Kind.INT128: "numeric",
        Kind.DOUBLE: "double precision",
        Kind.TIMESTAMP: "timestamptz",
        Kind.STRING: "text",
    }

    def __init__(self, target: Target, hook: Any, lock_timeout: float) -> None:
        super().__init__(target)
        self._hook = hook
        self._lock_timeout = lock_timeout
        self._connection: Any = None
        self._cursor: Any = None
        self._schema = target.schema or "public"
        self._without_key: Mapping[str, Type] = {}
        """Columns of the target, as long as it has no primary key."""

    @contextmanager
    def session(self) -> Iterator[None]:
        self._connection = connection = self._hook.get_conn()
        try:
            connection.autocommit = False
            self._cursor = _plain_cursor(connection)
            # Another level, such as the default of a role, would not see what the load before this one has committed.
            self.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            self._schema = self.target.schema or self._found_schema()
            with self.doing("waiting for another load of the table"):
                milliseconds = max(1, int(self._lock_timeout * 1000))
                self.execute(f"SET LOCAL lock_timeout = {milliseconds}; SET LOCAL datestyle = 'ISO'")
                self.execute("SELECT pg_advisory_xact_lock(%s)", _key(f"{self._schema}.{self.target.bare}"))
            yield
            connection.commit()
        finally:
            connection.close()  # rolls back what is not committed

    def _found_schema(self) -> str:
        """Return the schema in which `search_path` has the table, or would create it."""
        found = self.execute(
            "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(%s)), "
            "current_schema())",
            self.target.table,
        )
        return str(found.fetchone()[0])

    def dataset(self) -> tuple[str, str]:
        connection = self._hook.get_connection(self._hook.get_conn_id())
        table = f"{self._schema}.{self.target.bare}"
        return f"postgres://{connection.host}:{connection.port or 5432}", f"{connection.schema or ''}.{table}"

    def execute(self, statement: str, *parameters: Any) -> Any:
        self._cursor.execute(statement, parameters or None)
        return self._cursor

    def count(self, statement: str, *parameters: Any) -> int:
        return int(self.execute(statement, *parameters).rowcount)

    def lock_schema(self) -> None:
        self.execute("SELECT pg_advisory_xact_lock(%s)", _key(f"schema {self._schema}"))

    def columns(self, table: str) -> dict[str, Type] | None:
        found = self.execute(
            "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a "
            "WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            table,
        ).fetchall()
        # Columns of other types are not ours: a load neither fills nor changes them.
        return {name: _KINDS[type_] for name, type_ in found if type_ in _KINDS} if found else None

    def normal(self, type_: Type) -> Type:
        return Kind.JSON if isinstance(type_, (StructOf, ListOf)) else type_

    def accepts(self, name: str, columns: Collection[str]) -> bool:
        return super().accepts(name, columns) and len(name.encode()) <= _MAX_NAME and name not in _SYSTEM_COLUMNS

    def sql(self, type_: Type) -> str:
        return self.types.get(type_, "jsonb") if isinstance(type_, Kind) else "jsonb"

    def converted(self, column: str, had: Type, wanted: Type) -> str:
        if had is Kind.TIMESTAMP and wanted is Kind.STRING:
            return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
        return f"to_jsonb({column})" if wanted is Kind.JSON else f"{column}::{self.sql(wanted)}"

    def create(self, table: str, columns: Mapping[str, Type]) -> None:
        super().create(table, columns)
        self._without_key = columns

    def _add_key(self) -> None:
        """Add the key and the index to a new table. After the rows are inserted, this takes less CPU."""
        columns, self._without_key = self._without_key, {}
        if columns:
            self.execute(f'ALTER TABLE {self.target.table} ADD PRIMARY KEY ("id")')
        if columns.get("created_at") is Kind.TIMESTAMP:
            # Finds an interval in a large table, and costs a load almost nothing.
            self.execute(f"CREATE INDEX ON {self.target.table} USING brin (created_at)")

    def _has_key(self) -> bool:
        """Return whether the table, which its owner may have changed, refuses an id that it has."""
        found = self.execute(
            "SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            "WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate "
            "AND i.indpred IS NULL AND i.indnkeyatts = 1 AND a.attname = 'id'",
            self.target.table,
        )
        return found.fetchone() is not None

    def column(self, name: str, type_: Type) -> str:
        collated = name == "id" and type_ is Kind.STRING
        return super().column(name, type_) + (' COLLATE "C"' if collated else "")  # a bytewise comparison is cheaper

    def stage(self, source: Source, columns: Mapping[str, Type]) -> None:
        self._add_key()
        described = ", ".join(self.column(name, type_) for name, type_ in columns.items())
        self.execute(f"CREATE TEMP TABLE {STAGE} ({described}) ON COMMIT DROP")
        self._copy_into(STAGE, source, columns)
        self.execute(f"ANALYZE {STAGE} (id)")

    def fill(self, source: Source, columns: Mapping[str, Type]) -> bool:
        columns_without_key = self._without_key
        if not columns_without_key and not self._has_key():
            return False
        self.execute("SAVEPOINT empty")
        try:
            self._copy_into(self.target.table, source, columns)
            self._add_key()
        except Exception as error:
            if _sqlstate(error) not in (_UNIQUE_VIOLATION, _NOT_NULL_VIOLATION):
                raise
        else:
            return True
        self.execute("ROLLBACK TO SAVEPOINT empty")
        self._without_key = columns_without_key
        return False

    def _copy_into(self, table: str, source: Source, columns: Mapping[str, Type]) -> None:
        names = ", ".join(map(quoted, columns))
        statement = (
            f"COPY {table} ({names}) FROM STDIN (FORMAT csv, QUOTE '\"', ESCAPE E'\\\\', NULL 'null', ENCODING 'UTF8')"
        )
        with ExitStack() as stack:
            blocks = self._parquet(source, columns, stack) if source.is_parquet else self._lines(source, columns)
            self._copy(statement, blocks)

    def _lines(self, source: Source, columns: Mapping[str, Type]) -> Iterator[bytes]:
        lines = Lines(columns, source.fields)
        for block in source.blocks():
            yield lines.csv(block)

    def _parquet(self, source: Source, columns: Mapping[str, Type], stack: ExitStack) -> Iterator[bytes]:
        rows = 0
        for path in source.files(stack):
            for number, block in parquet_rows(path, source, columns):
                rows += number
                yield block
        source.check_rows(rows)

    def _copy(self, statement: str, blocks: Iterator[bytes]) -> None:
        if hasattr(self._cursor, "copy_expert"):  # psycopg2
            reader = _Reader(blocks)
            try:
                self._cursor.copy_expert(statement, reader, _READ_SIZE)
            except Exception:
                if reader.error is None:
                    raise
            if reader.error is not None:  # psycopg2 says only that the COPY was cancelled
                raise reader.error
            return
        with self._cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)

    def merge(self, columns: Mapping[str, Type], staged: Mapping[str, Type], stamp: tuple[str, str]) -> tuple[int, int]:
        table = self.target.table
        names = [quoted(name) for name in columns]
        new = [f"s.{quoted(name)}" if name in staged else f"NULL::{self.sql(type_)}" for name, type_ in columns.items()]
        pairs = [pair for pair in zip(names, new, strict=True) if pair[0] != '"id"']
        changed = inserted = 0
        if pairs:
            changed = self._write(
                f"UPDATE {table} t SET {', '.join(f'{name} = {value}' for name, value in pairs)} FROM {STAGE} s "
                f'WHERE t."id" = s."id" AND ({", ".join(f"t.{name}" for name, _ in pairs)}) '
                f"IS DISTINCT FROM ({', '.join(value for _, value in pairs)})",
                columns, stamp, "update",
            )  # fmt: skip
        inserted = self._write(
            f"INSERT INTO {table} AS t ({', '.join(names)}) SELECT {', '.join(new)} FROM {STAGE} s "
            f'WHERE NOT EXISTS (SELECT 1 FROM {table} o WHERE o."id" = s."id")',
            columns, stamp, "insert",
        )  # fmt: skip
        return inserted, changed

    def _write(self, statement: str, columns: Mapping[str, Type], stamp: tuple[str, str], operation: str) -> int:
        if not self.target.history:
            return self.count(statement)
        names = ", ".join(f"t.{quoted(name)}" for name in columns)
        return self.append_history(columns, "w", stamp, operation, f"WITH w AS ({statement} RETURNING {names}) ")

    def explain(self, error: Exception) -> str | None:
        kind = type(error)
        if kind.__module__.split(".")[0] not in ("psycopg", "psycopg2"):
            return None
        state = _sqlstate(error)
        if state is None:
            reason = str(error) if kind.__name__ == "OperationalError" else ""  # of libpq, about the connection
        elif state[:2] in _WITHOUT_VALUES:
            reason = ". ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))  # type: ignore[attr-defined]
        else:
            reason = ""
        named = f"{kind.__name__}, SQLSTATE {state}" if state else kind.__name__
        return f"{named}: {' '.join(reason.split()).rstrip('.')}" if reason else named


_UNIQUE_VIOLATION, _NOT_NULL_VIOLATION = "23505", "23502"
_WITHOUT_VALUES = ("08", "0A", "25", "28", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58")
"""Classes of errors whose messages name tables, columns, roles and settings, but no value of a row."""


def _sqlstate(error: Exception) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _plain_cursor(connection: Any) -> Any:
    """Return a cursor whose rows are tuples, whatever `cursor` in the connection's extra says."""
    if hasattr(connection, "row_factory"):
        from psycopg.rows import tuple_row

        return connection.cursor(row_factory=tuple_row)
    from psycopg2.extensions import cursor  # type: ignore[import-untyped,unused-ignore]

    return connection.cursor(cursor_factory=cursor)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"intergiro load {name}".encode()).digest()[:8], signed=True)


class _Reader:
    """A file object over the blocks, for psycopg2."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block, self._place = memoryview(b""), 0
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Return at most this number of bytes; none at the end."""
        while self._place >= len(self._block):
            try:
                block = next(self._blocks, None)
            except Exception as error:
                self.error = error
                raise
            if block is None:
                return b""
            self._block, self._place = memoryview(block), 0
        piece = self._block[self._place : self._place + size]
        self._place += len(piece)
        return bytes(piece)

    def readline(self, size: int = -1) -> bytes:
        """Raise an error: psycopg2 requires this method but does not call it."""
        raise IntergiroError("COPY reads in blocks")
