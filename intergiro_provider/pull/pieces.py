# SPDX-License-Identifier: Apache-2.0
"""What one window of a pull comes to: parts that are finished, and perhaps one that is being written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from intergiro_provider.pull.manifest import Part
from intergiro_provider.pull.pages import Page, RecordId, record_id

if TYPE_CHECKING:
    from intergiro_provider.pull.files import PartWriter


@dataclass(eq=False)
class OpenPart:
    """A part that is being written.

    :param name: what it will be called. :param since: a clock's reading from when it was opened.
    """

    name: str
    writer: PartWriter
    since: float
    is_whole: bool = True
    """Whether it ends with a whole page."""


class Durable(NamedTuple):
    """The part of a piece that a crash does not touch.

    :param last_id: the record with which it ends. :param reached: up to which time it has everything.
    """

    parts: tuple[Part, ...] = ()
    first_id: RecordId | None = None
    last_id: RecordId | None = None
    reached: datetime | None = None


class Piece:
    """One window's parts. All but :meth:`abort` under :attr:`lock`.

    :param open_part: opens another part.
    :param durable: what an earlier try has left.
    """

    def __init__(self, open_part: Callable[[], OpenPart], durable: Durable) -> None:
        self.lock = threading.Lock()
        self.durable = durable
        self._open_part = open_part
        self._part: OpenPart | None = None
        self._first_id, self._last_id = durable.first_id, durable.last_id

    def add(self, page: Page, records: list[Any]) -> None:
        """Append what is kept of a page."""
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

    def size(self) -> int:
        """Bytes in the open part, before compression."""
        return self._part.writer.raw_bytes if self._part is not None else 0

    def since(self) -> float | None:
        """When the open part was opened; None if there is none."""
        return self._part.since if self._part is not None else None

    def finish(self, reached: datetime | None) -> None:
        """End the open part, which is durable then.

        :param reached: up to which time the window has everything.
        """
        part = self._part
        if part is None or not part.is_whole:
            return
        part.is_whole = False
        stored = part.writer.finish()
        self._part = None
        finished = Part(path=part.name, rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)
        self.durable = Durable((*self.durable.parts, finished), self._first_id, self._last_id, reached)

    def abort(self) -> None:
        """Let go of the open part, whoever holds the lock."""
        if (part := self._part) is not None:
            part.writer.abort()


def _id_at(page: Page, records: list[Any], index: int) -> RecordId | None:
    """The id of the first (0) or last (-1) record that was kept of a page."""
    if records[index] is page.records[index]:
        return page.first_id if index == 0 else page.last_id
    return record_id(records[index])
