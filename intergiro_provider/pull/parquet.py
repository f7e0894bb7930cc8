# SPDX-License-Identifier: Apache-2.0
"""Parquet: all parts of a result have one schema, which holds every record, so they can be read together.

The schema is known only after the last page. Until then, the records are staged as compressed JSON lines, and their
type is inferred (:mod:`.schema`). Then they are read in the order of the list and written as Parquet, with one block in
memory. So an attempt that resumes finds the records as the bank sent them, and the files do not depend on the windows.

Import this module inside functions only: it imports pyarrow.
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
from intergiro_provider.pull import names
from intergiro_provider.pull.jsonl import JsonLines
from intergiro_provider.pull.manifest import Part
from intergiro_provider.pull.rows import AS_JSON, columns_of, has_text, rewritten, wrapped
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type, finalize

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import FileSink
    from intergiro_provider.pull.target import Target

log = logging.getLogger(__name__)

STAGED_SUFFIX = ".jsonl.zst"
_STAGED_CODEC, _STAGED_LEVEL = "zstd", 1

_LEVELS = {None: None, "gzip": 6, "zstd": 3}  # the default of pyarrow for gzip is 9, which takes 20 times the CPU

BLOCK = 1 << 20
"""Bytes of JSON lines in one block."""
ROW_GROUP = 16 << 20
"""Bytes of JSON lines in a row group: about 30,000 transactions, or 2 MB as they are stored."""
CELLS = 4 << 20
"""Values in a row group. Nulls count: they take memory, although a missing field takes no bytes in JSON lines."""

_KINDS = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.INT64: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.STRING: pa.string(),
    Kind.INT128: pa.string(),
    Kind.JSON: pa.string(),
}
_IS_JSON = {"content": "json"}
"""The metadata of a field whose strings are JSON text."""


class Parquet(JsonLines):
    """The format of one pull: its staged JSON lines, and the Parquet files that are made from them.

    :param compression: of the pages in the files: None, ``gzip`` or ``zstd``.
    :param timestamps: whether ISO 8601 in fields named ``…_at`` becomes a timestamp.
    """

    keeps_lone_surrogates = False  # no string of Parquet can hold one

    def __init__(self, compression: str | None, timestamps: bool) -> None:
        super().__init__(_Frames, timestamps)
        self._codec = compression

    def blocks(self, parts: Sequence[Part], target: Target) -> Iterator[bytes]:
        """Yield the lines of staged parts, in blocks of whole lines."""
        return _blocks(parts, target)

    def assemble(
        self, staged: Sequence[Part], target: Target, part_bytes: int, check: Callable[[], None]
    ) -> list[Part]:
        """Write the parts to publish from the staged ones, in this order.

        :param part_bytes: the size at which a part ends, before compression.
        :param check: called now and then; raises if the pull was told to stop.
        """
        schema = _Schema(finalize(self.type_of(staged, target, check), self._timestamps))
        if staged:
            log.info("All %s records are pulled. Writing them as Parquet.", f"{sum(part.rows for part in staged):,}")
        writer = _Writer(target, schema, self._codec, part_bytes)
        try:
            for block in _blocks(staged, target, min(BLOCK, part_bytes)):
                check()
                writer.write(block)
            parts = writer.finish()
        except BaseException:
            writer.abort()
            raise
        if sum(part.rows for part in parts) != sum(part.rows for part in staged):
            raise IntergiroError(
                "Writing Parquet lost or repeated records. Nothing was published. Report this as a bug."
            )
        return parts


class _Frames:
    """Compresses each block into a frame of its own. Needs no package except pyarrow."""

    def __init__(self) -> None:
        self._codec = pa.Codec(_STAGED_CODEC, _STAGED_LEVEL)

    def compress(self, data: bytes, /) -> bytes:
        compressed: bytes = self._codec.compress(data, asbytes=True) if data else b""
        return compressed

    def flush(self) -> bytes:
        return b""


def _blocks(staged: Sequence[Part], target: Target, size: int = BLOCK) -> Iterator[bytes]:
    """Yield the lines of all parts in blocks of whole lines. The blocks do not depend on where the parts end.

    :param size: the size of a block, unless a line is longer.
    """
    held = b""
    for part in staged:
        with closing(target.reopen(part.path)) as file, pa.CompressedInputStream(file, _STAGED_CODEC) as stream:
            while data := stream.read(size - len(held) % size):
                held += data
                if len(held) % size == 0 and (cut := held.rfind(b"\n") + 1):
                    yield held[:cut]
                    held = held[cut:]
    if held:
        yield held


class _Schema:
    """Turns JSON lines into tables of one schema."""

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
                pass  # a name twice, or an unusual form of a time
        try:
            return self._read(rewritten(lines, self._columns))
        except (pa.ArrowInvalid, msgspec.DecodeError, KeyError):  # their messages quote the record
            raise IntergiroError(
                'A record could not be written as Parquet, although it fits the schema. Use file_format="jsonl", and '
                "report this as a bug."
            ) from None

    def _read(self, lines: bytes) -> Any:
        options = pa.json.ReadOptions(use_threads=False, block_size=len(lines))
        return pa.json.read_json(pa.BufferReader(lines), read_options=options, parse_options=self._parse)


def _leaves(type_: Type) -> int:
    """Return the number of columns that a type has in a file."""
    match type_:
        case StructOf(fields):
            return sum(map(_leaves, fields.values()))
        case ListOf(element):
            return _leaves(element)
    return 1


def _split(lines: bytes, most: int) -> Iterator[bytes]:
    """Yield the lines in blocks of at most this many lines."""
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
    """Collects blocks into row groups, and writes row groups into parts."""

    def __init__(self, target: Target, schema: _Schema, codec: str | None, part_bytes: int) -> None:
        self._target = target
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
        # With many columns, one block can hold more values than a row group may have.
        most = max(1, CELLS // 4 // self._schema.columns)
        for block in _split(lines, most):
            table = self._schema.table(block)
            self._tables.append(table)
            self._group_bytes += len(block)
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
            self._name = names.part_name(len(self._parts), self._target.pull_id, ".parquet")
            self._sink = self._target.stage(self._name)
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
    """The file object that pyarrow writes to. The writer, and not pyarrow, closes the sink."""

    closed = False

    def __init__(self, sink: FileSink) -> None:
        self.write = sink.write

    def flush(self) -> None: ...

    def close(self) -> None: ...
