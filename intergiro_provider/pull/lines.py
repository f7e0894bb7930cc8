# SPDX-License-Identifier: Apache-2.0
"""Read JSON lines, plain or compressed, in blocks of whole lines, in constant memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroValueError

if TYPE_CHECKING:
    from typing import BinaryIO

BLOCK = 1 << 20
"""Bytes that are read from a file at once."""
COMPRESSED_BLOCK = 1 << 17
"""The same for a compressed file, which becomes about ten times as large."""

_GZIP = 16 + zlib.MAX_WBITS


def decompressor(name: str) -> Callable[[bytes], bytes]:
    """Return a function that decompresses a file with this name, block by block.

    :raises IntergiroValueError: the package for the compression is not installed.
    """
    if name.endswith(".gz"):
        return zlib.decompressobj(_GZIP).decompress
    if not name.endswith(".zst"):
        return lambda data: data
    try:
        import zstandard  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise IntergiroValueError(
            f"`path`: {name} is compressed with zstd, which needs the package zstandard: pip install "
            "'airflow-provider-intergiro[zstd]'"
        ) from None
    decompress: Callable[[bytes], bytes] = zstandard.ZstdDecompressor().decompressobj().decompress
    return decompress


def read_lines(file: BinaryIO, name: str, on_data: Callable[[bytes], object] = bool) -> Iterator[bytes]:
    """Yield the lines of a file in blocks of whole lines.

    :param name: the name of the file, whose ending tells its compression.
    :param on_data: called with each block of the file, as it is stored.
    """
    decompress = decompressor(name)
    size = BLOCK if name.endswith(".jsonl") else COMPRESSED_BLOCK
    rest = b""
    while data := file.read(size):
        on_data(data)
        block = decompress(data)
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
    if rest:
        yield rest
