# SPDX-License-Identifier: Apache-2.0
"""``_manifest.json``: which parts make up a result. Replacing it is what publishes a pull."""

from __future__ import annotations

from typing import Any

import msgspec

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroValueError

MANIFEST_NAME = "_manifest.json"
MANIFEST_VERSION = 1

_Bytes = bytes


class Part(msgspec.Struct, frozen=True):
    """One file of a result.

    :param path: the file's name, in the directory of the manifest.
    :param rows: how many records it holds.
    :param bytes: its size as it is stored, compressed if it is compressed.
    :param sha256: hex digest of the same bytes.
    """

    path: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A result: its parts in the order of the list, and what was asked for.

    :param pull_id: names the pull that made it; part of its parts' names.
    :param endpoint: what was pulled, as the user wrote it.
    :param rows: records in all parts. :param bytes: size of all parts as stored.
    :param first_id: id of the first record, None if there is none. :param last_id: id of the last.
    :param created_from: first instant of the interval, ``YYYY-MM-DDTHH:MM:SS.mmmZ``; None without bounds.
    :param created_to: the instant at which it had ended, written alike.
    :param complete_until: records created before this instant were there to be pulled: `created_to`, or when the pull
        began if that was earlier; None without bounds.
    :param query: filters and order of the pull, those in ``endpoint`` included; without bounds and page size. None: an
        older version has written the manifest.
    :param schema: what the records hold: a field's name → ``string``, ``int53``, ``int64``, ``int128``, ``double``,
        ``boolean``, ``timestamp``, ``json``, ``null`` (no value so far), an object of these, or a list of one.
    """

    version: int = MANIFEST_VERSION
    pull_id: str
    endpoint: str
    parts: list[Part]
    rows: int
    bytes: int  # the name is the contract's; below it, it is no type any more
    first_id: str | int | None
    last_id: str | int | None
    created_from: str | None
    created_to: str | None
    complete_until: str | None = None
    query: dict[str, Any] | None = None
    schema: Any = None
    provider_version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """The manifest in plain types, as a task returns it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> _Bytes:
        """The manifest as it is stored, indented for a person's eye."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_manifest(stored: bytes, where: str) -> Manifest:
    """Read what :meth:`Manifest.to_json` wrote.

    :param where: the directory, for the message.
    :raises IntergiroValueError: these bytes are something else, which must not be overwritten.
    """
    try:
        manifest = msgspec.json.decode(stored, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IntergiroValueError(
            f"`path`: the {MANIFEST_NAME} in {where} was not written by this provider, so nothing is "
            "replaced there; "
            "choose another directory, or remove that file"
        ) from None
    if manifest.version > MANIFEST_VERSION:
        raise IntergiroValueError(
            f"`path`: the {MANIFEST_NAME} in {where} was written by a newer version of this provider "
            f"({manifest.provider_version}); upgrade here, or choose another directory"
        )
    return manifest
