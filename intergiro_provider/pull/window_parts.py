# SPDX-License-Identifier: Apache-2.0
"""The parts of one window: finished ones, and perhaps one that is being written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from intergiro_provider.pull.manifest import Part
from intergiro_provider.pull.pages import Page, RecordId, record_id

if TYPE_CHECKING:
    from intergiro_provider.pull.jsonl import PartWriter


@dataclass(eq=False)
class OpenPart:
    """A part that is being written.

    :param name: its name once it is published.
    :param opened_at: when it was opened, by the clock of the checkpoints.
    """

    name: str
    writer: PartWriter
    opened_at: float
    is_whole: bool = True
    """Whether it ends with a whole page."""


class FinishedParts(NamedTuple):
    """The finished parts of a window, which survive a crash.

    :param first_id: the id of their first record.
    :param last_id: the id of their last record.
    :param pulled_until: all records of the window before this time are in them.
    """

    parts: tuple[Part, ...] = ()
    first_id: RecordId | None = None
    last_id: RecordId | None = None
    pulled_until: datetime | None = None


class WindowParts:
    """The parts of one window. Hold :attr:`lock` to call a method; only :meth:`abort` needs no lock.

    :param open_part: opens another part.
    :param finished: what an earlier attempt has finished.
    """

    def __init__(self, open_part: Callable[[], OpenPart], finished: FinishedParts) -> None:
        self.lock = threading.Lock()
        self.finished = finished
        self._open_part = open_part
        self._part: OpenPart | None = None
        self._first_id, self._last_id = finished.first_id, finished.last_id

    def add(self, page: Page, records: list[Any]) -> None:
        """Append the records of a page that belong to the window."""
        if not records:
            return
        if self._part is None:
            self._part = self._open_part()
        part = self._part
        part.is_whole = False
        part.writer.write(records)
        part.is_whole = True
        if self._first_id is None:
            self._first_id = _id_at(page, records, 0)
        self._last_id = _id_at(page, records, -1)

    def open_bytes(self) -> int:
        """Return the size of the open part, before compression."""
        return self._part.writer.raw_bytes if self._part is not None else 0

    def opened_at(self) -> float | None:
        """Return when the open part was opened; None if no part is open."""
        return self._part.opened_at if self._part is not None else None

    def finish(self, pulled_until: datetime | None) -> None:
        """Close the open part, which survives a crash from then on.

        :param pulled_until: all records of the window before this time have been added.
        """
        part = self._part
        if part is None or not part.is_whole:
            return
        part.is_whole = False
        stored = part.writer.finish()
        self._part = None
        closed = Part(path=part.name, rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)
        self.finished = FinishedParts((*self.finished.parts, closed), self._first_id, self._last_id, pulled_until)

    def abort(self) -> None:
        """Close the open part without finishing it, also while another thread holds the lock."""
        if (part := self._part) is not None:
            part.writer.abort()


def _id_at(page: Page, records: list[Any], index: int) -> RecordId | None:
    """Return the id of the first (0) or last (-1) of the records that were kept of a page."""
    if records[index] is page.records[index]:
        return page.first_id if index == 0 else page.last_id
    return record_id(records[index])
