# SPDX-License-Identifier: Apache-2.0
"""Search everything that an Airflow has written for strings, such as tokens."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


def database_cells(database: Path, only: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield every value of every table, or of one, as bytes, with the name of its table and column."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in (each for each in tables if not only or each == (only.encode(),)):
            cursor = connection.execute(f'select * from "{table.decode()}"')  # noqa: S608 # a name of the database's own
            names = [description[0] for description in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    if value is not None:
                        yield f"{table.decode()}.{name}", value if isinstance(value, bytes) else str(value).encode()
    finally:
        connection.close()


def postgres_cells(connection: Any, only: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the same of a PostgreSQL, given an open connection of psycopg2."""
    cursor = connection.cursor()
    cursor.execute(
        "select table_schema, table_name, column_name, data_type from information_schema.columns join "
        "information_schema.tables using (table_schema, table_name) where table_type = 'BASE TABLE' and "
        "table_schema not in ('pg_catalog', 'information_schema') and %s in ('', table_name)",
        (only,),
    )
    for schema, table, column, kind in cursor.fetchall():
        # Text as the database itself writes it: the driver would decode JSON, and so undo its escapes.
        value = f'"{column}"' if kind == "bytea" else f'"{column}"::text'
        cursor.execute(f'select {value} from "{schema}"."{table}" where "{column}" is not null')  # noqa: S608
        for (cell,) in cursor:
            yield f"{table}.{column}", cell.encode() if isinstance(cell, str) else bytes(cell)


def redis_values(client: Any) -> Iterator[tuple[str, bytes]]:
    """Yield every value that a Redis holds, and its keys, by key."""
    # Not DUMP: that compresses long strings.
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": lambda key: [client.get(key)],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"hash": lambda key: [part for item in client.hgetall(key).items() for part in item],
    }
    for key in client.scan_iter():
        place = f"redis {key.decode(errors='replace')}"
        yield place, key
        for value in readers[client.type(key)](key):
            yield place, value or b""


def files(folder: Path, without: Iterable[Path] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield the content of every file below a folder, with its path; what is gzipped is unpacked."""
    left_out = tuple(without)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(other) for other in left_out):
            content = path.read_bytes()
            yield str(path.relative_to(folder)), gzip.decompress(content) if path.suffix == ".gz" else content


def find(needles: Iterable[str], places: Iterable[tuple[str, bytes]]) -> list[str]:
    """Return the places that hold one of the needles, without saying which."""
    wanted = [needle.encode() for needle in needles]
    return sorted({place for place, content in places if any(needle in content for needle in wanted)})
