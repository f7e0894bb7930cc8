# SPDX-License-Identifier: Apache-2.0
"""Writing records into a file: JSON lines, plain or compressed, counted and hashed on the way, in constant
memory.

Each record becomes one line, byte for byte as the bank sent it. Only if the bank spread a record over several
lines is the white space between its tokens dropped; strings keep every byte.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError

if TYPE_CHECKING:
    import msgspec

    from intergiro_provider.pull.directory import FileSink

FILE_FORMATS = ("jsonl", "parquet")
COMPRESSIONS = (None, "gzip", "zstd")

_BLOCK = 1 << 20  # bytes gathered before they are compressed and handed to the file system
# zlib's way of asking for a gzip header. It holds no time, so equal rows make equal files.
_GZIP = 16 + zlib.MAX_WBITS


def check_format(file_format: Any, compression: Any) -> None:
    """Refuse what is no format at all.

    :raises IntergiroValueError: names the argument and what it may be.
    """
    for name, value, choices in (
        ("file_format", file_format, FILE_FORMATS),
        ("compression", compression, COMPRESSIONS),
    ):
        if value not in choices:
            raise IntergiroValueError(f"`{name}` has to be one of {', '.join(map(repr, choices))}, not {value!r}")


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


class Format(NamedTuple):
    """A way to store records: what its files' names end with, and what writes into such a file."""

    suffix: str
    open: Callable[[FileSink], PartWriter]


def get_format(file_format: str, compression: str | None) -> Format:
    """The format for these arguments of the operator.

    :raises IntergiroValueError: there is no such format, or not yet, or not without another package.
    """
    check_format(file_format, compression)
    if file_format == "parquet":
        raise IntergiroValueError(
            "`file_format`: this version cannot write 'parquet' yet; use 'jsonl', which Parquet tools read"
        )
    suffix, make_compressor = _COMPRESSORS[compression]
    make_compressor()  # a missing package is found here, before the first request
    return Format(".jsonl" + suffix, lambda sink: JsonLinesPart(sink, make_compressor()))


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
