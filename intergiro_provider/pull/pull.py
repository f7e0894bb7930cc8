# SPDX-License-Identifier: Apache-2.0
"""A pull: a list of the bank, or an interval of it, becomes parts and a manifest.

The interval is cut into windows (:mod:`.windows`), each of which is pulled by one cursor into parts of its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroError, IntergiroValidationError
from intergiro_provider.pull import claims
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.files import Format, PartWriter, get_format
from intergiro_provider.pull.manifest import Manifest, Part
from intergiro_provider.pull.pace import Pace
from intergiro_provider.pull.pages import Fetch, Page, RecordId, iter_pages, record_id
from intergiro_provider.pull.progress import Progress
from intergiro_provider.pull.query import page_query, refuse_bounds_in
from intergiro_provider.pull.target import Target
from intergiro_provider.pull.windows import ORDER, Crew, Window, Windows
from intergiro_provider.session.driver import finish_renewals

log = logging.getLogger(__name__)

PART_BYTES = 256 << 20
"""A part that has grown to this size, before compression, is ended, and another begun."""


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What to pull, and as what to store it. Checked when it is made.

    :param endpoint: the list, as the user wrote it; for the manifest and for messages.
    :param params: the query, bounds and cursor excepted.
    :param interval: which records to keep; None for all.
    :param max_parallel_windows: how many windows of the interval may be pulled side by side.
    :raises IntergiroValueError: the query, the format or their combination cannot work.
    """

    endpoint: str
    params: Mapping[str, Any] = field(default_factory=dict)
    interval: Interval | None = None
    file_format: str = "jsonl"
    compression: str | None = None
    max_parallel_windows: int = 1
    part_bytes: int = PART_BYTES

    @property
    def can_be_cut(self) -> bool:
        """Whether windows of time may be pulled side by side: there is an interval, and no wish for another order."""
        wishes = {name: self.params.get(name) for name in (*ORDER, "starting_after")}
        return self.interval is not None and all(
            wish is None or wish == ORDER.get(name) for name, wish in wishes.items()
        )

    def __post_init__(self) -> None:
        page_query(self.params)
        if self.interval is not None:
            refuse_bounds_in(self.params)
        get_format(self.file_format, self.compression)


STOP_WITHIN = 1.0
"""Seconds that a pull which has failed or was stopped waits for its threads; Airflow waits 5 before it kills."""


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
        self._open: set[_OpenPart] = set()
        self._pieces: dict[Window, _Piece] = {}
        size = request.max_parallel_windows if request.can_be_cut else 1
        self._order = ORDER if size > 1 else {}
        self._windows = Windows(request.interval, side_by_side=size > 1)
        self._crew = Crew(self._windows, self._walk, self.stop, size)
        self._pace = Pace(size, logger)

    def stop(self) -> None:
        """Let the pull end before its next page, without publishing."""
        self._stopped.set()
        self._windows.stop()
        self._pace.stop()
        self._crew.stop()

    def answered(self, status: int, retry_after: float | None) -> None:
        """Take note of an answer of the bank, those included that are asked for again: after a 429 fewer are sent at
        once."""
        self._pace.answered(status, retry_after)

    def run(self) -> Manifest:
        """Pull and publish; on any error, leave the directory with the result that it had."""
        try:
            former = self._target.begin()
            if former is not None and former.endpoint != self._request.endpoint:
                log.warning(
                    "%s replaces a result of another endpoint, %s: give each its own `path`.",
                    self._request.endpoint, former.endpoint,
                )  # fmt: skip
            self._crew.run()
            self._check_stopped()
            manifest = self._manifest([self._pieces[window] for window in self._windows.in_order()])
            self._check_stopped()
            self._target.commit(manifest)
        except BaseException:
            self.stop()
            self._crew.wait(STOP_WITHIN)
            # Those still waiting for the bank find their files closed, and end with its answer.
            for part in tuple(self._open):
                part.writer.abort()
            try:
                self._target.abandon()
            finally:
                finish_renewals()
            raise
        self._progress.summary(len(manifest.parts), manifest.bytes)
        return manifest

    def _walk(self, window: Window) -> None:
        """Pull one window into parts of its own."""
        piece = self._pieces[window] = _Piece()
        part: _OpenPart | None = None
        try:
            for page in self._pages(window):
                self._check_stopped()
                records = self._windows.accept(window, page)
                self._progress.add(len(records), self._standing)
                if not records:
                    continue
                if part is None:
                    part = self._open_part()
                part.writer.write(records)
                if not piece.parts and piece.first_id is None:
                    piece.first_id = _id_at(page, records, 0)
                piece.last_id = _id_at(page, records, -1)
                if part.writer.raw_bytes >= self._request.part_bytes:
                    piece.parts.append(self._finish(part))
                    part = None
            if part is not None:
                piece.parts.append(self._finish(part))
                part = None
        finally:
            if part is not None:
                self._open.discard(part)
                part.writer.abort()

    def _pages(self, window: Window) -> Iterator[Page]:
        """The pages of a window, taken up anew where a cut has made that necessary."""
        query = dict(self._request.params)
        while True:
            for page in iter_pages(lambda asked: self._page(window, asked), query):
                yield page
                if window.resumes:
                    break
            else:
                return
            query.pop("starting_after", None)
            if window.cursor is not None:
                query["starting_after"] = window.cursor

    def _page(self, window: Window, query: dict[str, Any]) -> bytes:
        """Ask for one page within the window as it is now."""
        with self._pace.leave():
            self._check_stopped()
            query = window.query(query)
            if not self._order:
                return self._fetch(query)
            try:
                return self._fetch({**self._order, **query})
            except IntergiroValidationError:
                if self._progress.pages:
                    raise
                # This list may not know our order. One cursor needs none.
                self._order = {}
                window.may_be_cut = False
                return self._fetch(query)

    def _standing(self) -> str:
        share = self._windows.share()
        if share is None:
            return ""
        ended, begun = self._windows.counts()
        seconds = self._progress.seconds() * (1 - share) / share if share > 0.02 else None
        left = f", about {seconds:.0f} s more at this pace" if seconds is not None else ""
        return f"; {share:.0%} of the interval, {ended} of {begun} windows done{left}"

    def _open_part(self) -> _OpenPart:
        name = claims.part_name(next(self._part_numbers), self._target.pull_id, self._format.suffix)
        part = _OpenPart(name, self._format.open(self._target.stage(name)))
        self._open.add(part)
        return part

    def _finish(self, part: _OpenPart) -> Part:
        stored = part.writer.finish()
        self._open.discard(part)
        return Part(path=part.name, rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256)

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


@dataclass(eq=False)
class _OpenPart:
    name: str
    writer: PartWriter


def _id_at(page: Page, records: list[Any], index: int) -> RecordId | None:
    """The id of the first (0) or last (-1) record that was kept of a page."""
    if records[index] is page.records[index]:
        return page.first_id if index == 0 else page.last_id
    return record_id(records[index])
