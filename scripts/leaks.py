# SPDX-License-Identifier: Apache-2.0
"""Where in what an Airflow has written does a string turn up?"""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path


def database_cells(database: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every value of every table as bytes, with the name of its table and column."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            cursor = connection.execute(f'select * from "{table.decode()}"')  # noqa: S608 # a name of the database's own
            names = [description[0] for description in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    if value is not None:
                        yield f"{table.decode()}.{name}", value if isinstance(value, bytes) else str(value).encode()
    finally:
        connection.close()


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
