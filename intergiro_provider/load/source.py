# SPDX-License-Identifier: Apache-2.0
"""Read the result of a pull by its manifest, and verify the rows and the SHA-256 of each part."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StorageError
from intergiro_provider.pull import names
from intergiro_provider.pull.lines import BLOCK, read_lines
from intergiro_provider.pull.manifest import MANIFEST_NAME, Manifest, Part, read_manifest
from intergiro_provider.pull.schema import StructOf, from_plain

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import Directory

REPLACEMENT = rb"\ufffd"
"""The JSON escape that replaces a character that a warehouse cannot store."""

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_SUSPECT = re.compile(
    rb"\\u(?:0000|[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F](?<!\\u[dD][89abAB]..\\u[dD][c-fC-F])))", re.DOTALL
).search
"""Finds NUL and halves of surrogate pairs, except after an escaped backslash."""
_ORDER = ("sort_by", "sort_type")


class Source:
    """The result of one pull.

    :param directory: where the pull has published it.
    :raises IntergiroValueError: there is no manifest, or another program wrote it.
    """

    def __init__(self, directory: Directory) -> None:
        stored = directory.read(MANIFEST_NAME)
        if stored is None:
            raise IntergiroValueError(
                f"`path`: there is no {MANIFEST_NAME} in {directory}; give the `path` of a pull that has succeeded"
            )
        self.manifest: Manifest = read_manifest(stored, str(directory))
        _check(self.manifest, directory)
        self.replaced = 0
        """Number of characters replaced by U+FFFD so far."""
        self._directory = directory
        type_ = from_plain(self.manifest.schema)
        if self.manifest.parts and not (isinstance(type_, StructOf) and "id" in type_.fields):
            raise IntergiroValueError(
                f"`path`: the manifest in {directory} describes no records with an `id`. A load needs a list of "
                "objects with ids, pulled by this version of the provider: pull it again"
            )
        self.fields = type_.fields if isinstance(type_, StructOf) else {}

    @property
    def filters(self) -> dict[str, Any] | None:
        """The filters of the pull, without its order; None if they are not known."""
        query = self.manifest.query
        if query is None or "?" in self.manifest.endpoint:
            return None
        return {name: value for name, value in query.items() if name not in _ORDER}

    @property
    def is_parquet(self) -> bool:
        """Whether the parts are Parquet and not JSON lines."""
        return bool(self.manifest.parts) and self.manifest.parts[0].path.endswith(".parquet")

    def blocks(self) -> Iterator[bytes]:
        """Yield the lines of all parts of JSON lines, with U+FFFD for NUL and for halves of surrogate pairs.

        :raises StorageError: a part differs from the manifest. By then, all its blocks may have been yielded.
        """
        for part in self.manifest.parts:
            digest, rows = hashlib.sha256(), 0
            try:
                with closing(self._open(part)) as file:
                    for block in read_lines(file, part.path, digest.update):
                        rows += block.count(b"\n")
                        yield self._clean(block) if b"\\u" in block else block
            except IntergiroError:
                raise
            except Exception as error:  # of zlib or zstandard
                raise self._spoiled(part, type(error).__name__) from None
            if rows != part.rows or digest.hexdigest() != part.sha256:
                raise self._spoiled(part, "rows" if rows != part.rows else "SHA-256")

    def _open(self, part: Part) -> BinaryIO:
        try:
            return self._directory.open(part.path)
        except FileNotFoundError:
            raise self._spoiled(part, "missing") from None

    def _clean(self, block: bytes) -> bytes:
        if b"\\\\u" not in block and not _SUSPECT(block):
            return block
        lines = block.split(b"\n")
        for number, line in enumerate(lines):
            if b"\\\\u" in line or (b"\\u" in line and _SUSPECT(line)):
                lines[number] = _ESCAPE.sub(self._replace, line)
        return b"\n".join(lines)

    def _replace(self, found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return found[0]
        self.replaced += 1
        return REPLACEMENT

    def without_nul(self, value: Any, is_json: bool) -> Any:
        """Return a value with U+FFFD for NUL.

        :param is_json: whether it is JSON text, where NUL is an escape.
        """
        if not isinstance(value, str):
            return value
        if is_json:
            return self._clean(value.encode()).decode()
        self.replaced += value.count("\0")
        return value.replace("\0", "\ufffd")

    def check_rows(self, rows: int) -> None:
        """Compare the number of rows that were read with the manifest.

        :raises StorageError: they differ.
        """
        if rows != self.manifest.rows:
            raise self._spoiled(self.manifest.parts[0], "rows")

    def files(self, stack: ExitStack) -> Iterator[str]:
        """Yield a path of a local file with the verified bytes of each Parquet part.

        Remote parts are copied into files without a name, which disappear with this process.
        """
        for part in self.manifest.parts:
            digest = hashlib.sha256()
            copy = None if self._directory.local else stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            with closing(self._open(part)) as file:
                while data := file.read(BLOCK):
                    digest.update(data)
                    if copy is not None:
                        copy.write(data)
            if digest.hexdigest() != part.sha256:
                raise self._spoiled(part, "SHA-256")
            if copy is None:
                yield f"{self._directory}/{part.path}"
            else:
                copy.flush()
                yield descriptor_path(copy)

    def _spoiled(self, part: Part, what: str) -> StorageError:
        return StorageError(
            f"`path`: {part.path} in {self._directory} differs from its manifest ({what}); nothing was loaded. If a "
            "pull has replaced the result in the meantime, run this task again; otherwise pull again"
        )


def _check(manifest: Manifest, directory: Directory) -> None:
    """Check that the fields of a manifest agree with each other.

    :raises IntergiroValueError: they do not, so the manifest was changed after the pull.
    """
    try:
        bounds = [datetime.fromisoformat(each) for each in (manifest.created_from, manifest.created_to) if each]
        is_whole = names.start_of(manifest.pull_id) is not None and len(bounds) in (0, 2)
    except ValueError:
        is_whole = False
    if not is_whole or sum(part.rows for part in manifest.parts) != manifest.rows:
        raise IntergiroValueError(
            f"`path`: the {MANIFEST_NAME} in {directory} was changed after the pull: its `pull_id`, bounds or `rows` "
            "do not fit; nothing was loaded. Pull again"
        )


def descriptor_path(file: Any) -> str:
    """Return a path with which this process can open a file that has no name."""
    return f"/dev/fd/{file.fileno()}"


def plain(value: Any) -> str:
    """Return JSON text."""
    return msgspec.json.encode(value).decode()
