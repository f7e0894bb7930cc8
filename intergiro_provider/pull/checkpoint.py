# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: how much of a pull has finished, so that the next attempt of its task resumes there.

A checkpoint is the file ``_checkpoint-<pull id>.json`` in the pull's directory. It holds the windows, the finished
parts of each, and the record after which each one resumes. :mod:`.checkpointer` decides when it is written and which
attempt may use it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

import msgspec

from intergiro_provider import __version__
from intergiro_provider.pull.manifest import Part

LATE_RECORDS = timedelta(minutes=5)
"""The bank may list a record this long after its `created_at`. An interval is complete only this long after its end."""


class WindowState(msgspec.Struct, frozen=True, kw_only=True):
    """One window in a checkpoint: its bounds, what has finished, and where it resumes.

    :param start: its first instant; None, as `end`: it has no bounds.
    :param end: the instant at which it has ended.
    :param ended: whether all of it was pulled.
    :param pulled_until: all records before this time are in the parts.
    :param last_id: the record after which it resumes; None: it starts from the beginning.
    """

    start: datetime | None
    end: datetime | None
    can_be_split: bool
    was_split: bool
    ended: bool
    pulled_until: datetime | None
    parts: tuple[Part, ...]
    first_id: str | int | None
    last_id: str | int | None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What has finished of a pull.

    :param fingerprint: of the request, see :func:`fingerprint`.
    :param began: when the first attempt began.
    :param saved_at: when the checkpoint was made.
    :param ordered: whether the list is requested in the order of time.
    """

    version: int = 1
    pull_id: str
    fingerprint: str
    began: datetime
    saved_at: datetime
    ordered: bool
    windows: tuple[WindowState, ...]

    @property
    def parts(self) -> list[Part]:
        """The finished parts."""
        return [part for window in self.windows for part in window.parts]

    @property
    def can_be_resumed(self) -> bool:
        """Whether each unfinished window has a record after which it resumes; records without ids give none."""
        return all(not window.parts or window.last_id is not None or self.is_over(window) for window in self.windows)

    def renamed(self, pull_id: str) -> Checkpoint:
        """Return the same checkpoint for another pull."""

        def rename(window: WindowState) -> WindowState:
            parts = tuple(
                msgspec.structs.replace(part, path=part.path.replace(self.pull_id, pull_id)) for part in window.parts
            )
            return msgspec.structs.replace(window, parts=parts)

        return msgspec.structs.replace(self, pull_id=pull_id, windows=tuple(map(rename, self.windows)))

    def is_over(self, window: WindowState) -> bool:
        """Return whether a window is pulled, and no record can have been added to it since."""
        return window.ended and (window.end is None or window.end <= self.saved_at - LATE_RECORDS)

    def to_json(self) -> bytes:
        """Return the checkpoint as it is stored."""
        return msgspec.json.encode(self)


def read_checkpoint(stored: bytes | None) -> Checkpoint | None:
    """Read what :meth:`Checkpoint.to_json` returned; None for anything else."""
    try:
        checkpoint = msgspec.json.decode(stored or b"", type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return checkpoint if checkpoint.version == 1 else None


def fingerprint(*request: Any) -> str:
    """Return a digest of everything that decides about a pull's records and their form."""
    text = json.dumps([__version__, *request], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
