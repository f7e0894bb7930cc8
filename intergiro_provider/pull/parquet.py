# SPDX-License-Identifier: Apache-2.0
"""Parquet: parts that can be read together, because all of them have the one schema that holds every record.

That schema is known when the last page has come. Until then the records are staged as JSON lines, compressed, and only
what they hold is noted (:mod:`.schema`); then they are read back, in the order of the list, and written as Parquet, one
block in memory at a time. So a pull that is taken up after a failure finds its records as the bank sent them, and how a
list was cut into windows leaves no trace in the files.

The only module that imports pyarrow: import it inside functions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]
import pyarrow.json  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.pull import claims
from intergiro_provider.pull.manifest import Part
from intergiro_provider.pull.rows import AS_JSON, columns_of, has_text, rewritten, wrapped
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type, settle
from intergiro_provider.pull.watched import Place, WatchedLines

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import FileSink

log = logging.getLogger(__name__)

STAGED_SUFFIX = ".jsonl.zst"
_STAGED_CODEC, _STAGED_LEVEL = "zstd", 1

_LEVELS = {None: None, "gzip": 6, "zstd": 3}  # of gzip, pyarrow takes 9 by itself, for 20 times the CPU

BLOCK = 1 << 20
"""Bytes of JSON lines that are read at a time."""
ROW_GROUP = 16 << 20
"""A row group ends when it holds so much, as JSON lines: some 30,000 transactions, 2 MB as stored."""
CELLS = 4 << 20
"""A row group ends when it has so many values, nulls among them, which take memory but no room in JSON lines."""

_KINDS = {
    Kind.BOOL: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.MOMENT: pa.timestamp("us", tz="UTC"),
    Kind.STRING: pa.string(),
    Kind.HUGE: pa.string(),
    Kind.TEXT: pa.string(),
}
_IS_JSON = {"content": "json"}
"""Metadata of a field whose strings are JSON text."""


class Parquet(WatchedLines):
    """The format, for one pull: remembers what the parts hold that it staged.

    :param compression: of the pages in the files; None, ``gzip`` or ``zstd``.
    :param moments: whether ISO 8601 in fields named ``…_at`` becomes a timestamp.
    """

    def __init__(self, compression: str | None, moments: bool) -> None:
        super().__init__(_Frames, moments)
        self._codec = compression

    def storable(self, records: Sequence[msgspec.Raw], seen: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
        """Return the records as they were seen: no string of Parquet can hold half a surrogate pair."""
        return seen

    def blocks(self, parts: Sequence[Part], place: Place) -> Iterator[bytes]:
        """Yield the lines of these parts in blocks of whole lines."""
        return _blocks(parts, place)

    def assemble(self, staged: Sequence[Part], place: Place, part_bytes: int, check: Callable[[], None]) -> list[Part]:
        """Make the parts to publish out of those that are staged, in this order.

        :param part_bytes: size at which a part ends, before compression.
        :param check: raises if the pull was told to stop; called now and then.
        """
        schema = _Schema(settle(self.type_of(staged, place, check), self._moments))
        if staged:
            log.info("All %s records have come; writing them as Parquet.", f"{sum(part.rows for part in staged):,}")
        writer = _Writer(place, schema, self._codec, part_bytes)
        try:
            for block in _blocks(staged, place, min(BLOCK, part_bytes)):
                check()
                writer.write(block)
            parts = writer.finish()
        except BaseException:
            writer.abort()
            raise
        if sum(part.rows for part in parts) != sum(part.rows for part in staged):
            raise IntergiroError("writing Parquet lost or repeated records; nothing was published")
        return parts


class _Frames:
    """Compresses block by block: needs no package beside pyarrow."""

    def __init__(self) -> None:
        self._codec = pa.Codec(_STAGED_CODEC, _STAGED_LEVEL)

    def compress(self, data: bytes, /) -> bytes:
        compressed: bytes = self._codec.compress(data, asbytes=True) if data else b""
        return compressed

    def flush(self) -> bytes:
        return b""


def _blocks(staged: Sequence[Part], place: Place, size: int = BLOCK) -> Iterator[bytes]:
    """The lines of all parts, one after the other, in blocks of whole lines that do not depend on where parts end.

    :param size: of a block, unless a line is longer.
    """
    held = b""
    for part in staged:
        with closing(place.reopen(part.path)) as file, pa.CompressedInputStream(file, _STAGED_CODEC) as stream:
            while data := stream.read(size - len(held) % size):
                held += data
                if len(held) % size == 0 and (cut := held.rfind(b"\n") + 1):
                    yield held[:cut]
                    held = held[cut:]
    if held:
        yield held


class _Schema:
    """Turns lines into a table of one schema."""

    def __init__(self, type_: Type) -> None:
        self._columns = columns_of(type_)
        self._is_wrapped = not isinstance(type_, StructOf)
        self._has_text = has_text(type_)
        self.columns = _leaves(type_)
        self.arrow = pa.schema(_field(name, column) for name, column in self._columns.items())
        self._parse = pa.json.ParseOptions(explicit_schema=self.arrow, unexpected_field_behavior="error")

    def table(self, lines: bytes) -> Any:
        if self._is_wrapped:
            lines = wrapped(lines)
        if not self._has_text:
            try:
                return self._read(lines)
            except pa.ArrowInvalid:
                pass  # a name twice, or a moment spelt otherwise
        try:
            return self._read(rewritten(lines, self._columns))
        except (pa.ArrowInvalid, msgspec.DecodeError, KeyError):  # whose message quotes the record
            raise IntergiroError(
                'a record could not be written as Parquet, although it fits the schema: use file_format="jsonl" and '
                "report this as a bug"
            ) from None

    def _read(self, lines: bytes) -> Any:
        options = pa.json.ReadOptions(use_threads=False, block_size=len(lines))
        return pa.json.read_json(pa.BufferReader(lines), read_options=options, parse_options=self._parse)


def _leaves(type_: Type) -> int:
    """How many columns a type has in a file."""
    match type_:
        case StructOf(fields):
            return sum(map(_leaves, fields.values()))
        case ListOf(element):
            return _leaves(element)
    return 1


def _split(lines: bytes, most: int) -> Iterator[bytes]:
    """The same lines, at most so many at a time."""
    if lines.count(b"\n") <= most:
        yield lines
        return
    each = lines.splitlines(keepends=True)
    for start in range(0, len(each), most):
        yield b"".join(each[start : start + most])


def _field(name: str, type_: Type) -> Any:
    return pa.field(name, _arrow(type_), metadata=_IS_JSON if type_ in AS_JSON else None)


def _arrow(type_: Type) -> Any:
    match type_:
        case StructOf(fields):
            return pa.struct([_field(name, inner) for name, inner in fields.items()])
        case ListOf(element):
            return pa.list_(_field("element", element))
    return _KINDS[type_]


class _Writer:
    """Writes blocks into row groups, and these into parts."""

    def __init__(self, place: Place, schema: _Schema, codec: str | None, part_bytes: int) -> None:
        self._place = place
        self._schema = schema
        self._codec = codec
        self._part_bytes = part_bytes
        self._parts: list[Part] = []
        self._tables: list[Any] = []
        self._group_bytes = self._group_rows = self._bytes = self._rows = 0
        self._name = ""
        self._sink: FileSink | None = None
        self._file: Any = None

    def write(self, lines: bytes) -> None:
        # Where there are many columns, the lines of one block make a table of more values than a row group may have.
        most = max(1, CELLS // 4 // self._schema.columns)
        for some in _split(lines, most):
            table = self._schema.table(some)
            self._tables.append(table)
            self._group_bytes += len(some)
            self._group_rows += table.num_rows
            full = self._group_rows * self._schema.columns >= CELLS
            if full or self._group_bytes >= min(ROW_GROUP, self._part_bytes):
                self._end_group()
        if self._bytes >= self._part_bytes:
            self._end_part()

    def finish(self) -> list[Part]:
        self._end_group()
        self._end_part()
        return self._parts

    def abort(self) -> None:
        if self._sink is not None:
            self._sink.abort()

    def _end_group(self) -> None:
        if not self._tables:
            return
        if self._sink is None:
            self._name = claims.part_name(len(self._parts), self._place.pull_id, ".parquet")
            self._sink = self._place.stage(self._name)
            self._file = pa.parquet.ParquetWriter(
                _Output(self._sink),
                self._schema.arrow,
                compression=self._codec or "none",
                compression_level=_LEVELS[self._codec],
            )
        group = pa.concat_tables(self._tables)
        self._file.write_table(group, row_group_size=group.num_rows)
        self._rows += group.num_rows
        self._bytes += self._group_bytes
        self._tables, self._group_bytes, self._group_rows = [], 0, 0

    def _end_part(self) -> None:
        if self._sink is None:
            return
        self._file.close()
        digest = self._sink.close()
        self._parts.append(Part(path=self._name, rows=self._rows, bytes=self._sink.bytes, sha256=digest))
        self._sink, self._rows, self._bytes = None, 0, 0


class _Output:
    """A sink, as pyarrow writes to a file. Closing it is not pyarrow's business."""

    closed = False

    def __init__(self, sink: FileSink) -> None:
        self.write = sink.write

    def flush(self) -> None: ...

    def close(self) -> None: ...
