# SPDX-License-Identifier: Apache-2.0
"""Write JSON lines, plain or compressed: one record per line, byte for byte as the bank sent it.

If the bank spreads a record over several lines, the white space between its tokens is dropped. Strings keep every byte.
Parts are counted, hashed and compressed while they are written, in constant memory. Their records' type is inferred at
the same time, for the manifest and for Parquet.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull import surrogates
from intergiro_provider.pull.lines import read_lines
from intergiro_provider.pull.schema import Type, TypeInference, unite_all

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import FileSink
    from intergiro_provider.pull.manifest import Part
    from intergiro_provider.pull.target import Target

_BLOCK = 1 << 18
"""Bytes that are collected before they are compressed and written."""
_GZIP = 16 + zlib.MAX_WBITS
"""Makes zlib write a gzip header. The header holds no time, so equal records make equal files."""


class Stored(NamedTuple):
    """A finished part: its records, its size as stored, and the hex digest of its bytes."""

    rows: int
    bytes: int
    sha256: str


class Compressor(Protocol):
    """A compression object, such as ``zlib.compressobj()``."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data, and return what is compressed so far."""

    def flush(self) -> bytes:
        """Return the rest."""


class JsonLines:
    """The format of the parts of one pull, and the type of the records in them.

    :param make_compressor: returns a new compressor for one part.
    :param timestamps: whether ISO 8601 in fields named ``…_at`` is a timestamp.
    """

    keeps_lone_surrogates = True
    """Whether strings with a lone surrogate are stored as they are, and not as the characters of its escape."""

    def __init__(self, make_compressor: Callable[[], Compressor], timestamps: bool = True) -> None:
        self._make_compressor = make_compressor
        self._timestamps = timestamps
        self._types: dict[str, Type] = {}
        """The type of the records of each part, by the part's digest."""

    def open(self, sink: FileSink) -> PartWriter:
        """Begin a part."""
        return PartWriter(sink, self._make_compressor(), self)

    def new_inference(self) -> TypeInference:
        """Return what infers the type of the records of one part."""
        return TypeInference(self._timestamps)

    def remember(self, stored: Stored, type_: Type) -> None:
        """Keep the type of the records of a finished part."""
        self._types[stored.sha256] = type_

    def type_of(self, parts: Sequence[Part], target: Target, check: Callable[[], None]) -> Type:
        """Return the narrowest type that holds every record of these parts.

        :param check: called now and then; raises if the pull was told to stop.
        """
        return unite_all(self._type_of(part, target, check) for part in parts)

    def _type_of(self, part: Part, target: Target, check: Callable[[], None]) -> Type:
        type_ = self._types.get(part.sha256)
        if type_ is None:  # an earlier attempt wrote it
            inference = self.new_inference()
            for block in self.blocks([part], target):
                check()
                infer(inference, [msgspec.Raw(line) for line in block.split(b"\n")[:-1]])
            type_ = self._types[part.sha256] = inference.type
        return type_

    def blocks(self, parts: Sequence[Part], target: Target) -> Iterator[bytes]:
        """Yield the lines of staged parts, in blocks of whole lines."""
        for part in parts:
            with closing(target.reopen(part.path)) as file:
                yield from read_lines(file, part.path)


def infer(inference: TypeInference, records: Sequence[msgspec.Raw]) -> Sequence[msgspec.Raw]:
    """Add records to an inference, and return them with each lone surrogate as the characters of its escape."""
    try:
        inference.add(records)
    except msgspec.DecodeError:
        records = [msgspec.Raw(surrogates.spell_out(bytes(record))) for record in records]
        inference.add(records)
    return records


class PartWriter:
    """A part that is being written.

    :param sink: its file.
    :param format_: what it belongs to.
    """

    def __init__(self, sink: FileSink, compressor: Compressor, format_: JsonLines) -> None:
        self.raw_bytes = 0
        """The size of its lines, before compression."""
        self._rows = 0
        self._sink = sink
        self._compressor = compressor
        self._format = format_
        self._inference = format_.new_inference()
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, records: Sequence[msgspec.Raw]) -> None:
        """Append records, one per line."""
        if not records:
            return
        spelled_out = infer(self._inference, records)
        lines = to_lines(records if self._format.keeps_lone_surrogates else spelled_out)
        self._rows += len(records)
        self.raw_bytes += len(lines)
        self._pending.append(lines)
        self._pending_bytes += len(lines)
        if self._pending_bytes >= _BLOCK:
            self._flush()

    def finish(self) -> Stored:
        """Write what is pending and close the file, which survives a crash from then on."""
        self._flush()
        self._sink.write(self._compressor.flush())
        digest = self._sink.close()
        stored = Stored(self._rows, self._sink.bytes, digest)
        self._format.remember(stored, self._inference.type)
        return stored

    def abort(self) -> None:
        """Close the file without finishing it. Never raises; the caller deletes the file."""
        self._sink.abort()

    def _flush(self) -> None:
        block = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._sink.write(self._compressor.compress(block))


def to_lines(records: Sequence[msgspec.Raw]) -> bytes:
    """Return one line per record, each ended by a newline."""
    together = b"".join(records)  # one search in one string is faster than a hundred searches
    if b"\n" in together or b"\r" in together:
        return b"".join(_one_line(bytes(record)) + b"\n" for record in records)
    return b"\n".join([*records, b""])


_STRING_OR_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)


def _one_line(record: bytes) -> bytes:
    line = _STRING_OR_SPACE.sub(lambda match: match[1] or b"", record)
    if b"\n" in line or b"\r" in line:  # the decoder has refused it already: JSON allows no line break in a string
        raise IntergiroResponseError("The list holds a record with a line break inside a string, which is not JSON.")
    return line


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> Compressor:
    return zlib.compressobj(wbits=_GZIP)


def _zstd() -> Compressor:
    try:
        import zstandard  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise IntergiroValueError(
            "`compression`: 'zstd' needs the package zstandard: pip install 'airflow-provider-intergiro[zstd]', or "
            "use 'gzip'"
        ) from None
    compressor: Compressor = zstandard.ZstdCompressor().compressobj()
    return compressor


COMPRESSORS: dict[str | None, tuple[str, Callable[[], Compressor]]] = {
    None: ("", _Plain),
    "gzip": (".gz", _gzip),
    "zstd": (".zst", _zstd),
}
"""For each `compression`, what ends the name of a file, and what returns a new compressor."""
