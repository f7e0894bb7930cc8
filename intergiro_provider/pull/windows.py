# SPDX-License-Identifier: Apache-2.0
"""Windows of time that are pulled side by side: whoever has nothing to do takes half of what another has before it.

A pull begins with one window, the whole interval, walked in the order of `created_at`. An idle thread cuts the rest of
the window with the most records left in two: its owner goes on to the cut, the idle thread begins there. So a heavy day
is shared by as many as are free, and a quiet night costs one request.

What a page may keep and where a window may be cut is decided under one lock, so that each record belongs to exactly one
window, equal timestamps included. A cut needs a list that is sorted and filtered as asked, which each page is checked
for; a list that is not is walked by one cursor from its beginning to its end.
"""

from __future__ import annotations

import contextvars
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
"""The order that lets a window be cut."""

MILLISECOND, SECOND, MINUTE, HOUR = (
    timedelta(milliseconds=1), timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
)  # fmt: skip
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BY_CHANCE = 0.1
"""A share of whole minutes above this is no chance: some times are shown in minutes only. Likewise hours."""
EVEN = 64
"""A cut falls on a multiple of a unit if so many fit into the rest of a window: its halves are even then."""
WORTH_A_CUT = 4
"""Pages that have to be left in a window before it is cut: each cut costs a part, and perhaps a request for nothing."""


class Window:
    """A stretch of the interval with its own cursor. Its end moves back when it is cut.

    :param interval: what to keep; None: everything, and no cuts.
    """

    def __init__(self, interval: Interval | None, may_be_cut: bool) -> None:
        self.interval = interval
        self.may_be_cut = may_be_cut and interval is not None
        self.was_cut = False
        self.reached = interval.start if interval is not None else None
        """Up to where all records have come."""
        self.per_page: timedelta | None = None
        """How much time a page covers: the last one, or that of the window from which this was cut; None: unknown."""
        self.ended = False
        self.resumes = False
        """Whether the list has to be taken up anew, after :attr:`cursor`, instead of after the last page."""
        self.cursor: RecordId | None = None
        self._asked_end: datetime | None = None

    @classmethod
    def taken_up(cls, state: WindowState, is_over: bool) -> Window:
        """A window as an earlier try left it.

        :param is_over: whether there is nothing more to pull.
        """
        interval = Interval(state.start, state.end) if state.start is not None and state.end is not None else None
        window = cls(interval, state.may_be_cut)
        window.was_cut, window.ended = state.was_cut, is_over
        if not state.ended:  # else what has come late since may lie anywhere in it
            window.reached = state.reached
        return window

    def query(self, page: dict[str, Any]) -> dict[str, Any]:
        """What to ask for now.

        :param page: the query of the next page, bounds excepted.
        """
        interval = self.interval
        if interval is None:
            return page
        self._asked_end, self.cursor, self.resumes = interval.end, page.get("starting_after"), False
        return page | interval.query()

    def crosses_a_cut(self, last: datetime) -> bool:
        """Whether a page that ends here was asked for before the window was cut, and reaches beyond that."""
        interval = self.interval
        return interval is not None and self._asked_end != interval.end and last >= interval.end

    def resume_after(self, last: RecordId | None) -> None:
        """Take up the list after this record; None: where the last page was taken up."""
        self.resumes = True
        if last is not None:
            self.cursor = last

    def pages_left(self) -> float:
        """How many more pages to expect, if the rest is as dense as the last page."""
        if not self.may_be_cut or self.ended or self.per_page is None or self.interval is None or self.reached is None:
            return 0.0
        return (self.interval.end - self.reached) / max(self.per_page, MILLISECOND)


class Windows:
    """The windows of one pull, and which of its threads pulls which.

    :param interval: the whole; None: everything.
    :param side_by_side: whether windows may be cut at all.
    :param limit: how many windows may be pulled side by side now.
    """

    def __init__(
        self, interval: Interval | None, side_by_side: bool, limit: Callable[[], float] = lambda: math.inf
    ) -> None:
        self._changed = threading.Condition()
        self._interval = interval
        self._limit = limit
        self._at_work = 0
        self._unit = HOUR
        """The unit to which the bank may have cut the times that it shows, or some of them."""
        self._seen = self._whole_minutes = self._whole_hours = 0
        self.all = [Window(interval, side_by_side)]
        self._waiting = [self.all[0]]
        self._stopped = False

    def take_up(self, windows: list[Window]) -> None:
        """Begin with these, instead of with the whole."""
        self.all = windows
        self._waiting = [window for window in windows if not window.ended]

    def look(self, at: Callable[[Window], T]) -> list[T]:
        """Look at all windows at one moment, between two cuts."""
        with self._changed:
            return [at(window) for window in self.all]

    def take(self) -> Window | None:
        """A window to pull, cut from another one if need be; None when nothing is left, or the pull has stopped."""
        with self._changed:
            while not self._stopped and not all(window.ended for window in self.all):
                if self._at_work < self._limit():
                    window = self._waiting.pop() if self._waiting else self._cut()
                    if window is not None:
                        self._at_work += 1
                        self._changed.notify()  # there may be enough for another
                        return window
                self._changed.wait()
            self._changed.notify_all()
            return None

    def wake(self) -> None:
        """Look again whether another window may be pulled: the limit has grown."""
        with self._changed:
            self._changed.notify()

    def accept(self, window: Window, page: Page) -> list[msgspec.Raw]:
        """What to keep of a page.

        :raises IntergiroResponseError: the list is not in the order in which it began, and parts of it may be missing.
        """
        if window.interval is None:
            return page.records
        with self._changed:
            if window.may_be_cut or window.was_cut:
                self._check_order(window, page)
            records = window.interval.select(page)
            if not (window.may_be_cut and page.created_at):
                return records
            last = page.created_at[-1]
            window.per_page = last - page.created_at[0]
            window.reached = min(last, window.interval.end) if page.has_more else window.interval.end
            self._look_at_unit(page.created_at)
            if self._at_work < self._limit():
                self._changed.notify()
            if page.has_more and window.crosses_a_cut(last):
                # Its last record lies outside of the bounds that are asked for from now on, so it is no cursor; and
                # that nothing more belongs to this window is for the bank to say.
                last_kept = record_id(records[-1]) if records else None
                if records and last_kept is None:
                    raise IntergiroResponseError(
                        "the list holds a record without an `id` to go on from: set max_parallel_windows=1"
                    )
                window.resume_after(last_kept)
            return records

    def end(self, window: Window) -> None:
        """The window is pulled to its end."""
        with self._changed:
            window.ended = True
            self._at_work -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody take another window."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def share(self) -> float | None:
        """Which share of the interval's time has come, 0 to 1; None without an interval or an order."""
        if self._interval is None or not self.all[0].may_be_cut:
            return None
        with self._changed:
            left = sum(
                (w.interval.end - w.reached for w in self.all if not w.ended and w.interval and w.reached), timedelta()
            )
        return 1.0 - left / (self._interval.end - self._interval.start)

    def counts(self) -> tuple[int, int]:
        """How many windows are pulled to their end, and how many there are so far."""
        with self._changed:
            return sum(window.ended for window in self.all), len(self.all)

    def in_order(self) -> Iterable[Window]:
        """The windows by time."""
        return sorted(self.all, key=lambda window: window.interval or ())

    def _cut(self) -> Window | None:
        widest = max(self.all, key=Window.pages_left)
        if widest.pages_left() < WORTH_A_CUT or widest.interval is None or widest.reached is None:
            return None
        start, end = widest.interval
        middle = self._exact(widest.reached, end)
        if middle is None:
            return None
        window = Window(Interval(middle, end), may_be_cut=True)
        window.per_page = widest.per_page
        widest.interval = Interval(start, middle)
        widest.was_cut = True
        self.all.append(window)
        return window

    def _look_at_unit(self, times: list[datetime]) -> None:
        """Find out how fine the times are that the bank shows, from some of each page."""
        for time in times[:: max(1, len(times) // 20)]:
            self._seen += 1
            if not (time.second or time.microsecond):
                self._whole_minutes += 1
                self._whole_hours += not time.minute
        if self._whole_minutes < self._seen * BY_CHANCE:
            self._unit = SECOND
        else:
            self._unit = MINUTE if self._whole_hours < self._seen * BY_CHANCE else HOUR

    def _exact(self, start: datetime, end: datetime) -> datetime | None:
        """Return a moment near the middle at which the bank's filter and the times that it shows agree.

        A bank may filter by milliseconds, and show seconds or minutes: a record a moment after a cut, shown with a time
        before it, would belong to neither window. So a cut falls on a whole second at least, on a minute or an hour
        where there is time enough, and on no finer moment than those that were shown. Where only whole hours were
        shown these may be days of some time zone, and there is no cut.
        """
        if self._unit == HOUR:
            return None
        for unit in (HOUR, MINUTE, self._unit):
            if unit == self._unit or (end - start) >= EVEN * unit:
                middle = start + (end - start) / 2
                middle -= (middle - EPOCH) % unit
                return middle if middle > start else None
        return None

    def _check_order(self, window: Window, page: Page) -> None:
        times = page.created_at
        asked = window.interval
        if not times or asked is None or window.reached is None:
            return
        if _is_sorted(times, window.reached) and (window.was_cut or times[-1] <= asked.end):
            return
        if window.was_cut:
            raise IntergiroResponseError(
                "the list is not sorted by `created_at`, although its first pages were: it cannot be pulled in "
                "windows. Set max_parallel_windows=1"
            )
        window.may_be_cut = False


def _is_sorted(times: list[Any], first: datetime) -> bool:
    """Whether these are moments, none of which lies before the one before it."""
    former = first - MILLISECOND
    for moment in times:
        if not isinstance(moment, datetime) or moment.tzinfo is None or moment < former:
            return False
        former = moment
    return True


Walk = Callable[[Window], None]


class Crew:
    """Threads that pull windows until none is left.

    :param walk: pulls one window to its end.
    :param on_failure: called when it has raised something.
    :param size: how many threads.
    """

    def __init__(self, windows: Windows, walk: Walk, on_failure: Callable[[], None], size: int) -> None:
        self._windows = windows
        self._walk = walk
        self._on_failure = on_failure
        self._size = size
        self._changed = threading.Condition()
        self._at_work = 0
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Pull everything, or until :meth:`stop`; raises the first failure of a thread."""
        self._at_work = self._size
        for number in range(self._size):
            context = contextvars.copy_context()
            threading.Thread(
                target=context.run, args=(self._work,), name=f"intergiro-pull-{number}", daemon=True
            ).start()
        with self._changed:
            # Signals reach the thread that waits here: a task's time-out or its end.
            while self._at_work and not self._stopped:
                self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let :meth:`run` return at once; its threads end with what they are waiting for."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait so long for all to end; whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, seconds)

    def _work(self) -> None:
        try:
            while (window := self._windows.take()) is not None:
                self._walk(window)
                self._windows.end(window)
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            self._on_failure()
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
