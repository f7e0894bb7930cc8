# SPDX-License-Identifier: Apache-2.0
"""A pull: a list of the bank, or an interval of it, becomes parts and a manifest.

The interval is cut into windows, each of which is pulled by one cursor into parts of its own. For now there
is one window; windows share nothing but the counters of parts and progress, so that they can be pulled side
by side.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.pull import claims
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.files import Format, PartWriter, get_format
from intergiro_provider.pull.manifest import Manifest, Part
from intergiro_provider.pull.pages import Fetch, Page, RecordId, iter_pages, record_id
from intergiro_provider.pull.progress import Progress
from intergiro_provider.pull.query import page_query, refuse_bounds_in
from intergiro_provider.pull.target import Target

log = logging.getLogger(__name__)

PART_BYTES = 256 << 20
"""A part that has grown to this size, before compression, is ended, and another begun."""


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What to pull, and as what to store it. Checked when it is made.

    :param endpoint: the list, as the user wrote it; for the manifest and for messages.
    :param params: the query, bounds and cursor excepted.
    :param interval: which records to keep; None for all.
    :raises IntergiroValueError: the query, the format or their combination cannot work.
    """

    endpoint: str
    params: Mapping[str, Any] = field(default_factory=dict)
    interval: Interval | None = None
    file_format: str = "jsonl"
    compression: str | None = None
    part_bytes: int = PART_BYTES

    def __post_init__(self) -> None:
        page_query(self.params)
        if self.interval is not None:
            refuse_bounds_in(self.params)
        get_format(self.file_format, self.compression)


class PullStopped(BaseException):
    """Raised inside a pull to end it at once; a BaseException, so that no error handling on the way takes it
    for a failure."""


@dataclass
class _Piece:
    """What one window came to."""

    parts: list[Part] = field(default_factory=list)
    first_id: RecordId | None = None
    last_id: RecordId | None = None


class Pull:
    """One pull. :meth:`run` it once; :meth:`stop` it from anywhere.

    :param fetch: takes a query and returns the body of the bank's answer; asked for one page at a time.
    :param target: where the result goes.
    """

    def __init__(self, request: PullRequest, fetch: Fetch, target: Target, logger: Any = log) -> None:
        self._request = request
        self._fetch = fetch
        self._target = target
        self._progress = Progress(logger, request.endpoint.partition("?")[0])
        self._format: Format = get_format(request.file_format, request.compression)
        self._part_numbers = itertools.count()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the pull end before its next page, without publishing."""
        self._stopped.set()

    def run(self) -> Manifest:
        """Pull and publish; on any error, leave the directory with the result that it had."""
        try:
            former = self._target.begin()
            if former is not None and former.endpoint != self._request.endpoint:
                log.warning(
                    "%s replaces a result of another endpoint, %s: give each its own `path`.",
                    self._request.endpoint, former.endpoint,
                )  # fmt: skip
            pieces = [self._pull_window(window) for window in self._windows()]
            manifest = self._manifest(pieces)
            self._check_stopped()
            self._target.commit(manifest)
        except BaseException:
            self._target.abandon()
            raise
        self._progress.summary(len(manifest.parts), manifest.bytes)
        return manifest

    def _windows(self) -> list[Interval | None]:
        return [self._request.interval]

    def _pull_window(self, window: Interval | None) -> _Piece:
        """Pull one window into parts of its own."""
        query = dict(self._request.params)
        if window is not None:
            query |= window.query()
        piece = _Piece()
        part: _OpenPart | None = None
        try:
            for page in iter_pages(self._fetch, query):
                self._check_stopped()
                records = page.records if window is None else window.select(page)
                self._progress.add(len(records))
                if not records:
                    continue
                if part is None:
                    part = self._open_part()
                part.writer.write(records)
                if not piece.parts and piece.first_id is None:
                    piece.first_id = _id_at(page, records, 0)
                piece.last_id = _id_at(page, records, -1)
                if part.writer.raw_bytes >= self._request.part_bytes:
                    piece.parts.append(part.finish())
                    part = None
            if part is not None:
                piece.parts.append(part.finish())
                part = None
        finally:
            if part is not None:
                part.writer.abort()
        return piece

    def _open_part(self) -> _OpenPart:
        name = claims.part_name(next(self._part_numbers), self._target.pull_id, self._format.suffix)
        return _OpenPart(name, self._format.open(self._target.stage(name)))

    def _manifest(self, pieces: list[_Piece]) -> Manifest:
        parts = [part for piece in pieces for part in piece.parts]
        filled = [piece for piece in pieces if piece.parts]
        interval = self._request.interval
        return Manifest(
            pull_id=self._target.pull_id,
            endpoint=self._request.endpoint,
            parts=parts,
            rows=sum(part.rows for part in parts),
            bytes=sum(part.bytes for part in parts),
            first_id=filled[0].first_id if filled else None,
            last_id=filled[-1].last_id if filled else None,
            created_from=interval.created_from if interval else None,
            created_to=interval.created_to if interval else None,
        )

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise IntergiroError("the pull was stopped; nothing was published")


@dataclass
class _OpenPart:
    name: str
    writer: PartWriter

    def finish(self) -> Part:
        stored = self.writer.finish()
        return Part(path=self.name, rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)


def _id_at(page: Page, records: list[Any], index: int) -> RecordId | None:
    """The id of the first (0) or last (-1) record that was kept of a page."""
    if records[index] is page.records[index]:
        return page.first_id if index == 0 else page.last_id
    return record_id(records[index])
