# SPDX-License-Identifier: Apache-2.0
"""A pull: a list of the bank, or an interval of it, becomes parts and a manifest.

The interval is cut into windows (:mod:`.windows`), each of which is pulled by one cursor into parts of its own
(:mod:`.pieces`). Where a try of its task fails, the next may take up what is durable (:mod:`.checkpoint`).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import (
    IntergiroError,
    IntergiroNotFound,
    IntergiroResponseError,
    IntergiroValidationError,
    UnreadableResponse,
)
from intergiro_provider.pull import claims
from intergiro_provider.pull.bounds import Interval, format_instant
from intergiro_provider.pull.checkpoint import Checkpoint, Resume, WindowState
from intergiro_provider.pull.files import Format, get_format
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pace import Crowded, Pace
from intergiro_provider.pull.pages import GetPage, Page, iter_pages, record_id
from intergiro_provider.pull.pieces import Durable, OpenPart, Piece
from intergiro_provider.pull.progress import Progress
from intergiro_provider.pull.query import filters_of, page_query, refuse_bounds_in
from intergiro_provider.pull.schema import to_plain
from intergiro_provider.pull.target import Target
from intergiro_provider.pull.windows import ORDER, Crew, Window, Windows

log = logging.getLogger(__name__)

PART_BYTES = 256 << 20
"""A part that has grown to this size, before compression, is ended, and another begun."""


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What to pull, and as what to store it. Checked when it is made.

    :param endpoint: the list, as the user wrote it; for the manifest and for messages.
    :param query: the query, bounds and cursor excepted.
    :param interval: which records to keep; None for all.
    :param max_parallel_windows: how many windows of the interval may be pulled side by side.
    :raises IntergiroValueError: the query, the format or their combination cannot work.
    """

    endpoint: str
    query: Mapping[str, Any] = field(default_factory=dict)
    interval: Interval | None = None
    file_format: str = "jsonl"
    compression: str | None = None
    parquet_timestamps: str = "typed"
    max_parallel_windows: int = 1
    part_bytes: int = PART_BYTES

    @property
    def can_be_cut(self) -> bool:
        """Whether windows of time may be pulled side by side: there is an interval, and no wish for another order."""
        wishes = {name: self.query.get(name) for name in (*ORDER, "starting_after")}
        return self.interval is not None and all(
            wish is None or wish == ORDER.get(name) for name, wish in wishes.items()
        )

    def __post_init__(self) -> None:
        page_query(self.query)
        if self.interval is not None:
            refuse_bounds_in(self.query)
        get_format(self.file_format, self.compression, self.parquet_timestamps)


STOP_WITHIN = 1.0
"""Seconds that a pull which has failed or was stopped waits for its threads; Airflow waits 5 before it kills."""


class PullStopped(BaseException):
    """Raised inside a pull to end it at once; a BaseException, so that no error handling on the way takes it
    for a failure."""


class Pull:
    """One pull. :meth:`run` it once; :meth:`stop` it from anywhere.

    :param get_page: takes a query and returns the page that the bank gives for it; threads call it side by side.
    :param target: where the result goes.
    :param resume: resumes an earlier attempt, and lets a later one resume this; None: each starts from the beginning.
    :param after_failure: called once the threads are told to end; waits for what must not be interrupted.
    """

    def __init__(
        self,
        request: PullRequest,
        get_page: GetPage,
        target: Target,
        logger: Any = log,
        resume: Resume | None = None,
        after_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self._after_failure = after_failure
        self._request = request
        self._get_page = get_page
        self._target = target
        self._resume = resume
        self._log = logger
        self._progress = Progress(logger, request.endpoint.partition("?")[0])
        self._format: Format = get_format(request.file_format, request.compression, request.parquet_timestamps)
        self._part_numbers = itertools.count()
        self._stopped = self._told_to_stop = False
        self._pieces: dict[Window, Piece] = {}
        self._taken_up: set[Window] = set()
        self._size = request.max_parallel_windows if request.can_be_cut else 1
        self._order = ORDER if self._size > 1 else {}
        self._pace = Pace(self._size, logger, on_growth=lambda: self._windows.wake())
        self._windows = Windows(request.interval, self._size > 1, lambda: self._pace.limit)
        self._crew = Crew(self._windows, self._walk, self._halt, self._size)
        self.began = datetime.now(UTC)
        """When the first try began whose records this one publishes."""

    def stop(self) -> None:
        """Let the pull end before its next page, without publishing."""
        self._told_to_stop = True
        self._halt()

    def _halt(self) -> None:
        self._stopped = True
        self._windows.stop()
        self._pace.stop()
        self._crew.stop()

    def answered(self, status: int, retry_after: float | None) -> None:
        """Take note of a response of the bank, before it is decided whether the request is repeated.

        :raises Crowded: it is a 429, after which the pull repeats the request itself.
        """
        self._pace.answered(status, retry_after)
        self._check_stopped()  # so that nothing is asked for again

    def run(self) -> Manifest:
        """Pull and publish; on any error, leave the directory with the result that it had."""
        try:
            self._begin()
            self._crew.run()
            self._check_stopped()
            manifest = self._manifest([self._pieces[window].durable for window in self._windows.in_order()])
            self._check_stopped()
            self._target.commit(manifest)
        except BaseException as error:
            self._halt()
            self._crew.wait(STOP_WITHIN)
            try:
                self._end_without_result(error)
            finally:
                self._after_failure()
            raise
        if self._resume is not None:
            self._resume.forget()
        self._progress.summary(manifest.rows, len(manifest.parts), manifest.bytes)
        return manifest

    def _begin(self) -> None:
        earlier = self._resume.find(self._target) if self._resume is not None else None
        former = self._target.begin(earlier)
        if former is not None and former.endpoint != self._request.endpoint:
            self._log.warning(
                "%s replaces a result of another endpoint, %s: give each its own `path`.",
                self._request.endpoint, former.endpoint,
            )  # fmt: skip
        if (taken := self._target.took_over) is not None:
            self._take_up(taken)
        for window in self._windows.all:
            self._pieces.setdefault(window, Piece(self._open_part, Durable()))

    def _take_up(self, earlier: Checkpoint) -> None:
        """Go on where an earlier try had got to."""
        self.began = earlier.began
        self._order = ORDER if earlier.ordered else {}
        for state in earlier.windows:
            window = Window.taken_up(state, earlier.is_over(state))
            durable = Durable(state.parts, state.first_id, state.last_id, state.reached)
            self._pieces[window] = Piece(self._open_part, durable)
        self._windows.take_up(list(self._pieces))
        self._taken_up = set(self._pieces)
        self._part_numbers = itertools.count(1 + max(claims.part_number(part.path) for part in earlier.parts))
        self._log.info(
            "An earlier try has left %s records in %d part(s); this one goes on from there.",
            f"{sum(part.rows for part in earlier.parts):,}", len(earlier.parts),
        )  # fmt: skip
        self._note()

    def _end_without_result(self, error: BaseException) -> None:
        """Clear up after a failure; but what the next try can go on with stays."""
        # A list that contradicts itself leaves the pages before in doubt; a response that is not JSON does not.
        doubtful = isinstance(error, IntergiroResponseError) and not isinstance(error, UnreadableResponse)
        kept = None
        if self._resume is not None and not doubtful:
            if isinstance(error, Exception) and not self._told_to_stop:
                self._finish_open_parts(self._resume)
            self._resume.close(STOP_WITHIN)
            kept = self._resume.saved
        # Threads that still wait for the bank find their files closed, and end with its answer.
        for piece in tuple(self._pieces.values()):
            piece.abort()
        if kept is not None:
            self._target.keep(kept)
            return
        self._target.abandon()
        if self._resume is not None and doubtful:
            self._resume.forget()

    def _finish_open_parts(self, resume: Resume) -> None:
        deadline = time.monotonic() + STOP_WITHIN
        try:
            for window, piece in tuple(self._pieces.items()):
                if piece.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    try:
                        piece.finish(window.reached)
                    finally:
                        piece.lock.release()
            if any(piece.durable.parts for piece in tuple(self._pieces.values())):
                resume.save_last(self._target, self._checkpoint, STOP_WITHIN)
        except Exception as error:  # a full disk, say: what was noted before is still there
            self._log.warning("Not all that was pulled could be kept for the next try (%s).", type(error).__name__)

    def _walk(self, window: Window) -> None:
        """Pull one window into parts of its own."""
        piece = self._pieces.setdefault(window, Piece(self._open_part, Durable()))
        goes_on = bool(piece.durable.parts)
        pages = self._pages(window, piece.durable)
        has_more = True
        with self._pace.turns():
            while has_more:
                with self._pace.page():
                    self._check_stopped()
                    page = next(pages)
                    if goes_on:
                        _check_goes_on(page, piece.durable, window.reached if self._order else None)
                        goes_on = False
                    has_more = self._store(window, piece, page)
        with piece.lock:
            self._check_stopped()
            piece.finish(window.reached)
        if self._resume is not None and self._resume.due():
            self._note()

    def _store(self, window: Window, piece: Piece, page: Page) -> bool:
        """Keep what belongs to the window; return whether there is more to ask for."""
        with piece.lock:
            self._check_stopped()
            records = self._windows.accept(window, page)
            self._progress.add(len(records), self._windows.share, self._standing)
            piece.add(page, records)
            since = piece.since()
            due = since is not None and self._resume is not None and self._resume.due(since)
            if due or piece.size() >= self._request.part_bytes:
                piece.finish(window.reached)
        if due:
            self._note()
        return page.has_more or window.resumes

    def _pages(self, window: Window, durable: Durable) -> Iterator[Page]:
        """The pages of a window, taken up anew where a cut has made that necessary."""
        query = dict(self._request.query)
        if durable.last_id is not None:
            query["starting_after"] = durable.last_id
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

    def _page(self, window: Window, query: dict[str, Any]) -> Page:
        """Ask for one page within the window as it is now."""
        query = window.query(query)
        try:
            page = self._ask({**self._order, **query})
        except (IntergiroValidationError, IntergiroNotFound) as error:
            if window in self._taken_up:
                raise IntergiroResponseError(
                    "the bank does not accept the record up to which an earlier try had got "
                    f"({type(error).__name__}); the next try starts anew"
                ) from error
            if not self._order or self._progress.pages or self._taken_up or isinstance(error, IntergiroNotFound):
                raise
            # This list may not know our order. One cursor needs none.
            self._order = {}
            window.may_be_cut = False
            return self._ask(query)
        self._taken_up.discard(window)
        return page

    def _ask(self, query: dict[str, Any]) -> Page:
        """Ask for one page; again after a 429, until there are many in a row, which are the client's to retry."""
        while True:
            try:
                return self._get_page(query)
            except Crowded as refused:
                self._pace.back_off(refused.seconds)
                self._check_stopped()

    def _standing(self, seconds_left: float | None) -> str:
        share = self._windows.share()
        if share is None:
            return ""
        ended, begun = self._windows.counts()
        left = f", about {seconds_left:.0f} s more at this pace" if seconds_left is not None else ""
        return f"; {share:.0%} of the interval, {ended} of {begun} windows done{left}"

    def _open_part(self) -> OpenPart:
        name = claims.part_name(next(self._part_numbers), self._target.pull_id, self._format.suffix)
        return OpenPart(name, self._format.open(self._target.stage(name)), self._resume.now() if self._resume else 0.0)

    def _note(self) -> None:
        """Note how far the pull is."""
        if self._resume is not None:
            self._resume.save(self._target, self._checkpoint)

    def _checkpoint(self) -> Checkpoint:
        def state(window: Window) -> WindowState:
            piece = self._pieces.get(window)
            durable = piece.durable if piece is not None else Durable()
            start, end = window.interval or (None, None)
            return WindowState(
                start=start, end=end, may_be_cut=window.may_be_cut, was_cut=window.was_cut, ended=window.ended,
                reached=durable.reached or start, parts=durable.parts,
                first_id=durable.first_id, last_id=durable.last_id,
            )  # fmt: skip

        now = datetime.now(UTC)
        return Checkpoint(
            pull_id=self._target.pull_id,
            fingerprint=self._resume.fingerprint if self._resume is not None else "",
            began=self.began,
            saved_at=now,
            ordered=bool(self._order),
            windows=tuple(self._windows.look(state)),
        )

    def _manifest(self, pieces: list[Durable]) -> Manifest:
        parts = [part for piece in pieces for part in piece.parts]
        schema = self._format.type_of(parts, self._target, self._check_stopped)
        if self._format.assemble is not None:
            parts = self._format.assemble(parts, self._target, self._request.part_bytes, self._check_stopped)
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
            complete_until=format_instant(min(interval.end, self.began)) if interval else None,
            query=filters_of(self._request.query),
            schema=to_plain(schema) if parts else {},
        )

    def _check_stopped(self) -> None:
        if self._stopped:
            raise IntergiroError("the pull was stopped; nothing was published")


def _check_goes_on(page: Page, durable: Durable, reached: datetime | None) -> None:
    """Make sure that the bank has gone on after the last record of an earlier try, and not begun again.

    :param reached: no record may be older than this; None: the list has no order.
    """
    first = durable.first_id
    begins_again = first is not None and any(record_id(record) == first for record in page.records)
    moment = page.created_at[0] if page.created_at else None
    if reached is not None and isinstance(moment, datetime) and moment.tzinfo is not None:
        begins_again = begins_again or moment < reached
    if begins_again:
        raise IntergiroResponseError(
            "the bank did not go on after the record up to which an earlier try had got; the next try starts anew"
        )
