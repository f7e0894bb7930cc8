# SPDX-License-Identifier: Apache-2.0
"""Time windows, pulled side by side. An idle worker splits the window with the most pages left.

A pull begins with one window, the whole interval, in the order of `created_at`. A worker that has nothing to do takes
the second half of what is left in a window. So all workers share a heavy day, and a quiet night costs one request.

One lock guards two decisions: which records of a page to keep, and where to split a window. So each record belongs to
exactly one window, even where many have the same time. A split needs a list that is sorted and filtered as requested.
Each page is checked for that. A list that is not sorted is pulled with one cursor, from its beginning to its end.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from intergiro_provider.exceptions import IntergiroResponseError
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.checkpoint import WindowState
from intergiro_provider.pull.pages import record_id

if TYPE_CHECKING:
    import msgspec

    from intergiro_provider.pull.pages import Page, RecordId

T = TypeVar("T")

ORDER = {"sort_by": "created_at", "sort_type": "ASC"}
"""The order in which a window can be split."""

MILLISECOND, SECOND, MINUTE, HOUR = (
    timedelta(milliseconds=1), timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
)  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CHANCE = 0.1
"""If more than this share of the times are whole minutes, the bank shows some times in minutes only. Likewise hours."""
UNITS_TO_SPLIT = 64
"""A split falls on a whole unit if the rest of a window has this many: its halves are nearly equal then."""
PAGES_TO_SPLIT = 4
"""A window is split only if it has this many pages left: each split costs a part, and perhaps an empty page."""


class Window:
    """A part of the interval with its own cursor. A split moves its end back.

    :param interval: the records to keep; None: all, and no splits.
    """

    def __init__(self, interval: Interval | None, can_be_split: bool) -> None:
        self.interval = interval
        self.can_be_split = can_be_split and interval is not None
        self.was_split = False
        self.pulled_until = interval.start if interval is not None else None
        """All records before this time are pulled."""
        self.time_per_page: timedelta | None = None
        """How much time the last page covers; in a new window, that of the window it was split from; None: unknown."""
        self.ended = False
        self.restarts = False
        """Whether the next page is requested after :attr:`cursor` instead of after the last page."""
        self.cursor: RecordId | None = None
        self._requested_end: datetime | None = None

    @classmethod
    def from_checkpoint(cls, state: WindowState, is_over: bool) -> Window:
        """Return a window as an earlier attempt left it.

        :param is_over: whether there is nothing more to pull.
        """
        interval = Interval(state.start, state.end) if state.start is not None and state.end is not None else None
        window = cls(interval, state.can_be_split)
        window.was_split, window.ended = state.was_split, is_over
        if not state.ended:  # in an ended window, a record that was listed late can be anywhere
            window.pulled_until = state.pulled_until
        return window

    def query(self, page: dict[str, Any]) -> dict[str, Any]:
        """Return the query of the next page, with the window's bounds.

        :param page: the query without bounds.
        """
        interval = self.interval
        if interval is None:
            return page
        self._requested_end, self.cursor, self.restarts = interval.end, page.get("starting_after"), False
        return page | interval.query()

    def is_passed_by(self, last: datetime) -> bool:
        """Return whether a page was requested before a split, and ends behind it.

        :param last: the time of the last record of the page.
        """
        interval = self.interval
        return interval is not None and self._requested_end != interval.end and last >= interval.end

    def restart_after(self, last: RecordId | None) -> None:
        """Request the next page after this record; None: after the record before the last page."""
        self.restarts = True
        if last is not None:
            self.cursor = last

    def pages_left(self) -> float:
        """Return how many more pages to expect, if the rest is as dense as the last page."""
        if (
            not self.can_be_split
            or self.ended
            or self.time_per_page is None
            or self.interval is None
            or self.pulled_until is None
        ):
            return 0.0
        return (self.interval.end - self.pulled_until) / max(self.time_per_page, MILLISECOND)


class Windows:
    """The windows of one pull: a queue with work stealing.

    :param interval: the interval of the pull; None: everything.
    :param can_be_split: whether windows can be split at all.
    :param limit: returns how many windows may be pulled side by side now.
    """

    def __init__(
        self, interval: Interval | None, can_be_split: bool, limit: Callable[[], float] = lambda: math.inf
    ) -> None:
        self._changed = threading.Condition()
        self._interval = interval
        self._limit = limit
        self._active = 0
        self._precision = HOUR
        """The unit to which the bank may round the times that it shows, or some of them."""
        self._times = self._whole_minutes = self._whole_hours = 0
        self.all = [Window(interval, can_be_split)]
        self._waiting = [self.all[0]]
        self._stopped = False

    def restore(self, windows: list[Window]) -> None:
        """Begin with the windows of a checkpoint."""
        self.all = windows
        self._waiting = [window for window in windows if not window.ended]

    def snapshot(self, read: Callable[[Window], T]) -> list[T]:
        """Read all windows at one moment, between two splits."""
        with self._changed:
            return [read(window) for window in self.all]

    def take(self) -> Window | None:
        """Return a window to pull, split from another one if necessary; None if nothing is left or the pull stops."""
        with self._changed:
            while not self._stopped and not all(window.ended for window in self.all):
                if self._active < self._limit():
                    window = self._waiting.pop() if self._waiting else self._split()
                    if window is not None:
                        self._active += 1
                        self._changed.notify()  # there may be work for another worker
                        return window
                self._changed.wait()
            self._changed.notify_all()
            return None

    def wake(self) -> None:
        """Wake an idle worker: the limit has grown."""
        with self._changed:
            self._changed.notify()

    def accept(self, window: Window, page: Page) -> list[msgspec.Raw]:
        """Return the records of a page that belong to the window.

        :raises IntergiroResponseError: the list is not sorted as it was at first, so records can be missing.
        """
        if window.interval is None:
            return page.records
        with self._changed:
            if window.can_be_split or window.was_split:
                self._check_order(window, page)
            records = window.interval.select(page)
            if not (window.can_be_split and page.created_at):
                return records
            last = page.created_at[-1]
            window.time_per_page = last - page.created_at[0]
            window.pulled_until = min(last, window.interval.end) if page.has_more else window.interval.end
            self._learn_precision(page.created_at)
            if self._active < self._limit():
                self._changed.notify()
            if page.has_more and window.is_passed_by(last):
                # The last record lies outside of the new bounds, so it is no cursor for them. Only the bank can tell
                # whether more records belong to this window.
                last_kept = record_id(records[-1]) if records else None
                if records and last_kept is None:
                    raise IntergiroResponseError(
                        "The list holds a record without an `id`, so it cannot be pulled in windows. Set "
                        "`max_parallel_windows=1`."
                    )
                window.restart_after(last_kept)
            return records

    def end(self, window: Window) -> None:
        """Mark a window as pulled."""
        with self._changed:
            window.ended = True
            self._active -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let no worker take another window."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def share(self) -> float | None:
        """Return the share of the interval's time that is pulled, 0 to 1; None without an interval or an order."""
        if self._interval is None or not self.all[0].can_be_split:
            return None
        with self._changed:
            left = sum(
                (w.interval.end - w.pulled_until for w in self.all if not w.ended and w.interval and w.pulled_until),
                timedelta(),
            )
        return 1.0 - left / (self._interval.end - self._interval.start)

    def counts(self) -> tuple[int, int]:
        """Return how many windows are pulled, and how many there are so far."""
        with self._changed:
            return sum(window.ended for window in self.all), len(self.all)

    def in_order(self) -> Iterable[Window]:
        """Return the windows in the order of time."""
        return sorted(self.all, key=lambda window: window.interval or ())

    def _split(self) -> Window | None:
        largest = max(self.all, key=Window.pages_left)
        if largest.pages_left() < PAGES_TO_SPLIT or largest.interval is None or largest.pulled_until is None:
            return None
        start, end = largest.interval
        middle = self._split_point(largest.pulled_until, end)
        if middle is None:
            return None
        window = Window(Interval(middle, end), can_be_split=True)
        window.time_per_page = largest.time_per_page
        largest.interval = Interval(start, middle)
        largest.was_split = True
        self.all.append(window)
        return window

    def _learn_precision(self, times: list[datetime]) -> None:
        """Find out how precise the bank's times are, from about twenty times of each page."""
        for time in times[:: max(1, len(times) // 20)]:
            self._times += 1
            if not (time.second or time.microsecond):
                self._whole_minutes += 1
                self._whole_hours += not time.minute
        if self._whole_minutes < self._times * CHANCE:
            self._precision = SECOND
        else:
            self._precision = MINUTE if self._whole_hours < self._times * CHANCE else HOUR

    def _split_point(self, start: datetime, end: datetime) -> datetime | None:
        """Return a time near the middle at which the bank's filter and the times that it shows agree.

        A bank may filter by milliseconds but show seconds or minutes. A record just after a split could then be shown
        with a time before it, and belong to neither window. So a split falls on a whole hour or minute if there is
        enough time, at least on a whole second, and never between two times that the bank can show. If the bank shows
        only whole hours, these may be days of some time zone, and there is no split.
        """
        if self._precision == HOUR:
            return None
        for unit in (HOUR, MINUTE, self._precision):
            if unit == self._precision or (end - start) >= UNITS_TO_SPLIT * unit:
                middle = start + (end - start) / 2
                middle -= (middle - EPOCH) % unit
                return middle if middle > start else None
        return None

    def _check_order(self, window: Window, page: Page) -> None:
        times = page.created_at
        requested = window.interval
        if not times or requested is None or window.pulled_until is None:
            return
        if _is_sorted(times, window.pulled_until) and (window.was_split or times[-1] <= requested.end):
            return
        if window.was_split:
            raise IntergiroResponseError(
                "The list is not sorted by `created_at`, although its first pages were, so it cannot be pulled in "
                "windows. Set `max_parallel_windows=1`."
            )
        window.can_be_split = False


def _is_sorted(times: list[Any], first: datetime) -> bool:
    """Return whether these are times in ascending order, none before `first`."""
    previous = first - MILLISECOND
    for time in times:
        if not isinstance(time, datetime) or time.tzinfo is None or time < previous:
            return False
        previous = time
    return True
