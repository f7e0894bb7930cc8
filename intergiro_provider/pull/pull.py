# SPDX-License-Identifier: Apache-2.0
"""A pull: a list of the bank, or an interval of it, becomes parts and a manifest. The package shows a page's path."""

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
from intergiro_provider.pull import names
from intergiro_provider.pull.arguments import filters_of, page_query, refuse_bounds_in
from intergiro_provider.pull.bounds import Interval, format_instant
from intergiro_provider.pull.checkpoint import Checkpoint, WindowState
from intergiro_provider.pull.checkpointer import Checkpointer
from intergiro_provider.pull.formats import Format, get_format
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pace import Pace, TooManyRequests
from intergiro_provider.pull.pages import GetPage, Page, iter_pages, record_id
from intergiro_provider.pull.progress import Progress
from intergiro_provider.pull.schema import to_plain
from intergiro_provider.pull.target import Target
from intergiro_provider.pull.window_parts import FinishedParts, OpenPart, WindowParts
from intergiro_provider.pull.windows import ORDER, Window, Windows
from intergiro_provider.pull.workers import Workers

log = logging.getLogger(__name__)

PART_BYTES = 256 << 20
"""A part ends at this size, before compression."""
STOP_WITHIN = 1.0
"""Seconds that a pull waits for its threads after it has failed or was stopped. Airflow kills the task after 5."""


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What to pull, and how to store it. The arguments are checked when it is created.

    :param endpoint: the list, as the user wrote it; for the manifest and for messages.
    :param query: the query, without bounds and cursor.
    :param interval: which records to keep; None: all.
    :param max_parallel_windows: how many windows may be pulled side by side.
    :raises IntergiroValueError: an argument, or a combination of arguments, cannot work.
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
    def can_be_split(self) -> bool:
        """Whether time windows can be pulled side by side: there is an interval, and the query names no other order."""
        requested = {name: self.query.get(name) for name in (*ORDER, "starting_after")}
        return self.interval is not None and all(
            value is None or value == ORDER.get(name) for name, value in requested.items()
        )

    def __post_init__(self) -> None:
        page_query(self.query)
        if self.interval is not None:
            refuse_bounds_in(self.query)
        get_format(self.file_format, self.compression, self.parquet_timestamps)


class PullStopped(BaseException):
    """Stops a pull at once. A BaseException, so that no error handler treats it as a failure."""


class Pull:
    """One pull. Call :meth:`run` once; any thread may call :meth:`stop`.

    :param get_page: takes a query and returns the bank's page for it. Threads call it side by side.
    :param target: where the result goes.
    :param checkpointer: finds the checkpoint of an earlier attempt, and writes those of this one; None: no checkpoints.
    :param after_failure: called after a failure, when the threads are ending; waits for a renewal, which must not be
        interrupted.
    """

    def __init__(
        self,
        request: PullRequest,
        get_page: GetPage,
        target: Target,
        logger: Any = log,
        checkpointer: Checkpointer | None = None,
        after_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self._request = request
        self._get_page = get_page
        self._target = target
        self._log = logger
        self._checkpointer = checkpointer
        self._after_failure = after_failure
        self._progress = Progress(logger, request.endpoint.partition("?")[0])
        self._format: Format = get_format(request.file_format, request.compression, request.parquet_timestamps)
        self._part_numbers = itertools.count()
        self._stopped = self._told_to_stop = False
        self._parts: dict[Window, WindowParts] = {}
        self._resumed: set[Window] = set()
        """Windows of an earlier attempt that have no page of this one yet."""
        size = request.max_parallel_windows if request.can_be_split else 1
        self._order = ORDER if size > 1 else {}
        self._pace = Pace(size, logger, on_growth=lambda: self._windows.wake())
        self._windows = Windows(request.interval, size > 1, lambda: self._pace.limit)
        self._workers = Workers(self._windows, self._pull_window, self._halt, size)
        self.began = datetime.now(UTC)
        """When the first attempt began whose records this one publishes."""

    def stop(self) -> None:
        """Let the pull end before its next page, without publishing."""
        self._told_to_stop = True
        self._halt()

    def _halt(self) -> None:
        self._stopped = True
        self._windows.stop()
        self._pace.stop()
        self._workers.stop()

    def on_response(self, status: int, retry_after: float | None) -> None:
        """Record a response, before the client decides whether to repeat the request.

        :raises TooManyRequests: it is a 429, and the pull repeats the request itself.
        """
        self._pace.on_response(status, retry_after)
        self._check_stopped()  # so that no request is repeated

    def run(self) -> Manifest:
        """Pull and publish. After an exception, the directory has its previous result."""
        try:
            self._begin()
            self._workers.run()
            self._check_stopped()
            manifest = self._manifest([self._parts[window].finished for window in self._windows.in_order()])
            self._check_stopped()
            self._target.commit(manifest)
        except BaseException as error:
            self._halt()
            self._workers.wait(STOP_WITHIN)
            try:
                self._end_without_result(error)
            finally:
                self._after_failure()
            raise
        if self._checkpointer is not None:
            self._checkpointer.forget()
        self._progress.summary(manifest.rows, len(manifest.parts), manifest.bytes)
        return manifest

    def _begin(self) -> None:
        earlier = self._checkpointer.find(self._target) if self._checkpointer is not None else None
        previous = self._target.begin(earlier)
        if previous is not None and previous.endpoint != self._request.endpoint:
            self._log.warning(
                "%s replaces a result of another endpoint, %s. Give each endpoint its own `path`.",
                self._request.endpoint, previous.endpoint,
            )  # fmt: skip
        if self._target.resumed is not None:
            self._resume_from(self._target.resumed)
        for window in self._windows.all:
            self._parts.setdefault(window, WindowParts(self._open_part, FinishedParts()))

    def _resume_from(self, checkpoint: Checkpoint) -> None:
        self.began = checkpoint.began
        self._order = ORDER if checkpoint.ordered else {}
        for state in checkpoint.windows:
            window = Window.from_checkpoint(state, checkpoint.is_over(state))
            finished = FinishedParts(state.parts, state.first_id, state.last_id, state.pulled_until)
            self._parts[window] = WindowParts(self._open_part, finished)
        self._windows.restore(list(self._parts))
        self._resumed = set(self._parts)
        self._part_numbers = itertools.count(1 + max(names.part_number(part.path) for part in checkpoint.parts))
        self._log.info(
            "An earlier attempt has pulled %s records into %d part(s). This attempt resumes there.",
            f"{sum(part.rows for part in checkpoint.parts):,}", len(checkpoint.parts),
        )  # fmt: skip
        self._save_checkpoint()

    # The path of a page: a worker pulls a window with the paginator, which requests the pages from the client.

    def _pull_window(self, window: Window) -> None:
        """Pull one window into its parts; a worker calls this."""
        parts = self._parts.setdefault(window, WindowParts(self._open_part, FinishedParts()))
        resumes = bool(parts.finished.parts)
        pages = self._pages(window, parts.finished.last_id)
        has_more = True
        with self._pace.turns():
            while has_more:
                with self._pace.page():
                    self._check_stopped()
                    page = next(pages)
                    if resumes:
                        _check_resumed(page, parts.finished, window.pulled_until if self._order else None)
                        resumes = False
                    has_more = self._store(window, parts, page)
        with parts.lock:
            self._check_stopped()
            parts.finish(window.pulled_until)
        if self._checkpointer is not None and self._checkpointer.is_due():
            self._save_checkpoint()

    def _pages(self, window: Window, last_id: str | int | None) -> Iterator[Page]:
        """Yield the pages of a window. After a split, its list may have to be requested again, with another end.

        :param last_id: begin after this record; None: where the query begins.
        """
        query = dict(self._request.query)
        if last_id is not None:
            query["starting_after"] = last_id
        while True:
            for page in iter_pages(lambda query: self._page(window, query), query):
                yield page
                if window.restarts:
                    break
            else:
                return
            query.pop("starting_after", None)
            if window.cursor is not None:
                query["starting_after"] = window.cursor

    def _page(self, window: Window, query: dict[str, Any]) -> Page:
        """Request one page, within the present bounds of its window."""
        query = window.query(query)
        try:
            page = self._request_page({**self._order, **query})
        except (IntergiroValidationError, IntergiroNotFound) as error:
            if window in self._resumed:
                raise IntergiroResponseError(
                    f"The bank no longer accepts the record after which this attempt resumes ({type(error).__name__}). "
                    "The next attempt starts from the beginning."
                ) from error
            if not self._order or self._progress.pages or self._resumed or isinstance(error, IntergiroNotFound):
                raise
            # This list may not support our order. One cursor needs none.
            self._order = {}
            window.can_be_split = False
            return self._request_page(query)
        self._resumed.discard(window)
        return page

    def _request_page(self, query: dict[str, Any]) -> Page:
        """Request one page from the client. Repeat it after a 429; the client counts a long series as failures."""
        while True:
            try:
                return self._get_page(query)
            except TooManyRequests as refused:
                self._pace.back_off(refused.seconds)
                self._check_stopped()

    def _store(self, window: Window, parts: WindowParts, page: Page) -> bool:
        """Store the records of a page that belong to its window; return whether the window has more pages."""
        with parts.lock:
            self._check_stopped()
            records = self._windows.accept(window, page)
            self._progress.add(len(records), self._windows.share, self._describe_progress)
            parts.add(page, records)
            opened_at = parts.opened_at()
            is_due = opened_at is not None and self._checkpointer is not None and self._checkpointer.is_due(opened_at)
            if is_due or parts.open_bytes() >= self._request.part_bytes:
                parts.finish(window.pulled_until)
        if is_due:
            self._save_checkpoint()
        return page.has_more or window.restarts

    def _open_part(self) -> OpenPart:
        name = names.part_name(next(self._part_numbers), self._target.pull_id, self._format.suffix)
        opened_at = self._checkpointer.now() if self._checkpointer else 0.0
        return OpenPart(name, self._format.open(self._target.stage(name)), opened_at)

    def _describe_progress(self, seconds_left: float | None) -> str:
        share = self._windows.share()
        if share is None:
            return ""
        ended, begun = self._windows.counts()
        left = f", about {seconds_left:.0f} s left" if seconds_left is not None else ""
        return f"; {share:.0%} of the interval, {ended} of {begun} windows done{left}"

    def _end_without_result(self, error: BaseException) -> None:
        """Delete the files of a failed pull, except those from which the next attempt resumes."""
        # If the list contradicts itself, the earlier pages are in doubt. A response that is not JSON does not do that.
        in_doubt = isinstance(error, IntergiroResponseError) and not isinstance(error, UnreadableResponse)
        checkpoint = None
        if self._checkpointer is not None and not in_doubt:
            if isinstance(error, Exception) and not self._told_to_stop:
                self._finish_open_parts(self._checkpointer)
            self._checkpointer.close(STOP_WITHIN)
            checkpoint = self._checkpointer.saved
        # A thread that still waits for the bank finds its file closed, and ends.
        for parts in tuple(self._parts.values()):
            parts.abort()
        if checkpoint is not None:
            self._target.suspend(checkpoint)
            return
        self._target.abandon()
        if self._checkpointer is not None and in_doubt:
            self._checkpointer.forget()

    def _finish_open_parts(self, checkpointer: Checkpointer) -> None:
        deadline = time.monotonic() + STOP_WITHIN
        try:
            for window, parts in tuple(self._parts.items()):
                if parts.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                    try:
                        parts.finish(window.pulled_until)
                    finally:
                        parts.lock.release()
            if any(parts.finished.parts for parts in tuple(self._parts.values())):
                checkpointer.save_last(self._target, self._checkpoint, STOP_WITHIN)
        except Exception as error:  # such as a full disk: the last checkpoint is still there
            self._log.warning("Not all pulled records could be kept for the next attempt (%s).", type(error).__name__)

    def _save_checkpoint(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer.save(self._target, self._checkpoint)

    def _checkpoint(self) -> Checkpoint:
        def state(window: Window) -> WindowState:
            parts = self._parts.get(window)
            finished = parts.finished if parts is not None else FinishedParts()
            start, end = window.interval or (None, None)
            return WindowState(
                start=start, end=end, can_be_split=window.can_be_split, was_split=window.was_split,
                ended=window.ended, pulled_until=finished.pulled_until or start, parts=finished.parts,
                first_id=finished.first_id, last_id=finished.last_id,
            )  # fmt: skip

        now = datetime.now(UTC)
        return Checkpoint(
            pull_id=self._target.pull_id,
            fingerprint=self._checkpointer.fingerprint if self._checkpointer is not None else "",
            began=self.began,
            saved_at=now,
            ordered=bool(self._order),
            windows=tuple(self._windows.snapshot(state)),
        )

    def _manifest(self, windows: list[FinishedParts]) -> Manifest:
        parts = [part for window in windows for part in window.parts]
        schema = self._format.type_of(parts, self._target, self._check_stopped)
        if self._format.assemble is not None:
            parts = self._format.assemble(parts, self._target, self._request.part_bytes, self._check_stopped)
        filled = [window for window in windows if window.parts]
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
            raise IntergiroError("The pull was stopped. Nothing was published.")


def _check_resumed(page: Page, finished: FinishedParts, pulled_until: datetime | None) -> None:
    """Check that the bank has continued after the last record of an earlier attempt, and not begun again.

    :param pulled_until: no record may be older than this; None: the list has no order.
    """
    first = finished.first_id
    begins_again = first is not None and any(record_id(record) == first for record in page.records)
    time_of_first = page.created_at[0] if page.created_at else None
    if pulled_until is not None and isinstance(time_of_first, datetime) and time_of_first.tzinfo is not None:
        begins_again = begins_again or time_of_first < pulled_until
    if begins_again:
        raise IntergiroResponseError(
            "The bank did not continue after the last record of the earlier attempt. The next attempt starts from the "
            "beginning."
        )
