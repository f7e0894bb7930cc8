# SPDX-License-Identifier: Apache-2.0
"""Writing records into a file: JSON lines, plain or compressed, counted and hashed on the way, in constant
memory. Parquet is made of them: see :mod:`.parquet`.

Each record becomes one line, byte for byte as the bank sent it. Only if the bank spread a record over several
lines is the white space between its tokens dropped; strings keep every byte.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.query import check_format

if TYPE_CHECKING:
    import msgspec

    from intergiro_provider.pull.directory import FileSink
    from intergiro_provider.pull.manifest import Part
    from intergiro_provider.pull.schema import Type
    from intergiro_provider.pull.target import Target

_BLOCK = 1 << 18  # bytes gathered before they are compressed and handed to the file system
# zlib's way of asking for a gzip header. It holds no time, so equal rows make equal files.
_GZIP = 16 + zlib.MAX_WBITS


class Stored(NamedTuple):
    """What a finished part came to: its records, its size as stored, and the hex digest of that."""

    rows: int
    bytes: int
    sha256: str


class PartWriter(Protocol):
    """A part that is being written."""

    raw_bytes: int
    """What was put in so far, before compression."""

    def write(self, records: Sequence[msgspec.Raw]) -> None:
        """Append records."""

    def finish(self) -> Stored:
        """Write what is left and close the file, which is durable afterwards."""

    def abort(self) -> None:
        """Let go of the file, however far it is. Never raises; removing the file is somebody else's
        business."""


class Assemble(Protocol):
    """Makes the parts to publish out of those that were written."""

    def __call__(
        self, staged: Sequence[Part], place: Target, part_bytes: int, check: Callable[[], None], /
    ) -> list[Part]:
        """Write them beside the others.

        :param staged: what was written, in the order of the list.
        :param part_bytes: size at which a part ends, before compression.
        :param check: raises if the pull was told to stop; called now and then.
        """


class Format(NamedTuple):
    """A way to store the records of one pull.

    :param suffix: what its files' names end with. :param open: begins to write such a file.
    :param type_of: the type that holds every record of parts that are written.
    :param assemble: called once all is written; None: what is written is what is published.
    """

    suffix: str
    open: Callable[[FileSink], PartWriter]
    type_of: Callable[[Sequence[Part], Target, Callable[[], None]], Type]
    assemble: Assemble | None = None


def get_format(file_format: str, compression: str | None, parquet_timestamps: str = "typed") -> Format:
    """The format for these arguments of the operator.

    :raises IntergiroValueError: there is no such format, or not without another package.
    """
    check_format(file_format, compression, parquet_timestamps)
    if file_format == "parquet":
        return _parquet(compression, parquet_timestamps)
    suffix, make_compressor = _COMPRESSORS[compression]
    make_compressor()  # a missing package is found here, before the first request
    from intergiro_provider.pull.watched import WatchedLines

    lines = WatchedLines(make_compressor)
    return Format(".jsonl" + suffix, lines.open, lines.type_of)


def _parquet(compression: str | None, timestamps: str) -> Format:
    try:
        from intergiro_provider.pull.parquet import STAGED_SUFFIX, Parquet
    except ImportError as error:
        raise IntergiroValueError(
            "`file_format`: 'parquet' needs the package pyarrow: pip install 'airflow-provider-intergiro[parquet]', or "
            f"use 'jsonl' ({error})"
        ) from error
    parquet = Parquet(compression, moments=timestamps == "typed")
    return Format(STAGED_SUFFIX, parquet.open, parquet.type_of, parquet.assemble)


class Compressor(Protocol):
    """The part of a compression object that we use."""

    def compress(self, data: bytes, /) -> bytes:
        """Take more, give what is ready."""

    def flush(self) -> bytes:
        """Give the rest."""


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
            "`compression`: 'zstd' needs the package zstandard: pip install "
            "'airflow-provider-intergiro[zstd]', or use 'gzip'"
        ) from None
    compressor: Compressor = zstandard.ZstdCompressor().compressobj()
    return compressor


_COMPRESSORS: dict[str | None, tuple[str, Callable[[], Compressor]]] = {
    None: ("", _Plain),
    "gzip": (".gz", _gzip),
    "zstd": (".zst", _zstd),
}


class JsonLinesPart:
    """JSON lines in one file: see :class:`PartWriter`."""

    def __init__(self, sink: FileSink, compressor: Compressor) -> None:
        self.raw_bytes = 0
        self._rows = 0
        self._sink = sink
        self._compressor = compressor
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, records: Sequence[msgspec.Raw]) -> None:
        """Append records, each as one line."""
        if not records:
            return
        lines = to_lines(records)
        self._rows += len(records)
        self.raw_bytes += len(lines)
        self._pending.append(lines)
        self._pending_bytes += len(lines)
        if self._pending_bytes >= _BLOCK:
            self._flush()

    def finish(self) -> Stored:
        """Write what is left and close the file."""
        self._flush()
        self._sink.write(self._compressor.flush())
        digest = self._sink.close()
        return Stored(self._rows, self._sink.bytes, digest)

    def abort(self) -> None:
        """Let go of the file."""
        self._sink.abort()

    def _flush(self) -> None:
        block = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._sink.write(self._compressor.compress(block))


def to_lines(records: Sequence[msgspec.Raw]) -> bytes:
    """One line per record, each ended by a newline."""
    together = b"".join(records)  # looking through one string is faster than through a hundred
    if b"\n" in together or b"\r" in together:
        return b"".join(_one_line(bytes(record)) + b"\n" for record in records)
    return b"\n".join([*records, b""])


_STRING_OR_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)


def _one_line(record: bytes) -> bytes:
    line = _STRING_OR_SPACE.sub(lambda match: match[1] or b"", record)
    if b"\n" in line or b"\r" in line:  # the decoder allows no raw line break in a string, so this is for safety only
        raise IntergiroResponseError("the list holds a record with a line break inside a string, which is not JSON")
    return line
