# SPDX-License-Identifier: Apache-2.0
"""``_manifest.json`` names the parts of a result. A pull is published when this file is replaced."""

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
    :param rows: the number of records in it.
    :param bytes: its size as it is stored, after compression.
    :param sha256: the hex digest of these bytes.
    """

    path: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A result: its parts in the order of the list, and the request.

    :param pull_id: the pull that wrote it; also in the names of its parts.
    :param endpoint: the list, as the user wrote it.
    :param rows: the number of records in all parts.
    :param bytes: the size of all parts as they are stored.
    :param first_id: the id of the first record; None if there is none.
    :param last_id: the id of the last record.
    :param created_from: the first instant of the interval, ``YYYY-MM-DDTHH:MM:SS.mmmZ``; None without bounds.
    :param created_to: the instant at which the interval ends, in the same form.
    :param complete_until: the result can hold all records created before this instant. It is `created_to`, or the time
        at which the pull began if that is earlier; None without bounds.
    :param query: the filters and the order, with those in ``endpoint``, without bounds and page size; None: an older
        version wrote the manifest.
    :param schema: the type of each field: ``string``, ``int53``, ``int64``, ``int128``, ``double``, ``boolean``,
        ``timestamp``, ``json``, ``null`` (no value so far), an object of types, or a list of one type.
    """

    version: int = MANIFEST_VERSION
    pull_id: str
    endpoint: str
    parts: list[Part]
    rows: int
    bytes: int  # hides the type `bytes` below
    first_id: str | int | None
    last_id: str | int | None
    created_from: str | None
    created_to: str | None
    complete_until: str | None = None
    query: dict[str, Any] | None = None
    schema: Any = None
    provider_version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest in plain types, as a task returns it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def to_json(self) -> _Bytes:
        """Return the manifest as it is stored, with indentation for people."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_manifest(stored: bytes, where: str) -> Manifest:
    """Read what :meth:`Manifest.to_json` returned.

    :param where: the directory, for the message.
    :raises IntergiroValueError: another program, or a newer version, wrote it, so it must not be replaced.
    """
    try:
        manifest = msgspec.json.decode(stored, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IntergiroValueError(
            f"`path`: the {MANIFEST_NAME} in {where} was not written by this provider, so nothing was changed there. "
            "Choose another directory, or delete that file."
        ) from None
    if manifest.version > MANIFEST_VERSION:
        raise IntergiroValueError(
            f"`path`: a newer version of this provider ({manifest.provider_version}) wrote the {MANIFEST_NAME} in "
            f"{where}. Upgrade the provider, or choose another directory."
        )
    return manifest
