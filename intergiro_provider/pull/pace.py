# SPDX-License-Identifier: Apache-2.0
"""The concurrency limit of a pull: how many windows are pulled side by side. The pull finds the best limit itself.

The limit starts at one and grows fourfold as long as that makes the pull faster, much as in TCP's slow start. A limit
is measured by the pages per second while that many windows are pulled, each with an open connection. If a higher limit
does not bring enough additional pages, because the bank or this process is busy, the previous limit is restored. From
then on the limit doubles at most. A higher limit is tried again later, each time after twice as many rounds.

A 429 halves a limit above one, or undoes its last increase. It is no failure: the caller repeats the request. From then
on the limit grows by one at a time, after a pause (additive increase, multiplicative decrease). At a limit of one, a
429 is the bank's rate limit, which applies to a single cursor, too. The pull then continues as fast as the bank allows.
Only many 429s in a row are a failure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GAIN = 0.25
"""A doubled limit must bring at least this share of additional pages per second; a smaller step in proportion. In a
larger step, the last doubling must bring it, if the others brought all that they can."""
ENOUGH, LONG_ENOUGH = 8, 0.01
"""A rate is measured over one page per window, and over at least this many pages or seconds."""
SLOWER = 3.0
"""If a page takes this many times as long as before at the same limit, the bank is slowing down."""
FIRST_ROUNDS, LAST_ROUNDS = 4, 64
"""Rounds at a limit after a higher one brought no more pages: the first time, and at most."""
HOLD = 20.0
"""After a 429 the limit does not grow for this many times the wait that the bank asked for. So attempts cost 5 %."""
LONGEST_HOLD = 160.0
"""The largest value of :data:`HOLD`, which doubles with each 429 that a limit above one causes."""
IN_A_ROW = 24
"""The number of 429s in a row after which the pull waits. The client counts later ones as failed attempts."""
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 60.0
"""Seconds. If the bank asks for a longer wait at a limit of one, the task fails and Airflow retries it."""
LONGEST_IN_A_ROW = 300.0
"""The largest sum of such waits in a row, in seconds."""


class TooManyRequests(Exception):
    """The bank returned 429, and the pull repeats the request itself.

    :param seconds: how long to wait before that.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Turn(threading.local):
    """The state of one thread.

    :param limit_number: the number of the limit under which its page began.
    :param is_warm: whether it has finished a page. The first page also opens a connection.
    """

    limit_number = 0
    is_warm = False


class Pace:
    """The concurrency limit that the threads of a pull share. Each thread pulls its window inside of :meth:`turns`.

    :param most: the highest limit.
    :param on_growth: called after the limit has grown.
    """

    def __init__(
        self,
        most: int,
        log: Any,
        clock: Callable[[], float] = time.monotonic,
        on_growth: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = 1
        self._most = most
        self._log = log
        self._clock = clock
        self._on_growth = on_growth
        self._changed = threading.Condition()
        self._under_way = 0
        self._limit_number = 0
        self._turn = _Turn()
        self._cold = 0
        """Working threads that have not finished a page yet."""
        self._counted_from: float | None = None
        """Since when as many threads work as the limit allows, all of them warm; the pages since then are counted."""
        self._pages = 0
        self._former: tuple[int, float] | None = None
        """While a higher limit is tried: the previous limit, and its pages per second."""
        self._usual = 0.0
        """The best number of seconds per page at this limit; 0: unknown."""
        self._factor = 4
        """The factor by which the limit grows; 2 after a higher limit did not bring enough additional pages."""
        self._patience = FIRST_ROUNDS
        self._rounds = 0
        """Rounds left until a higher limit is tried."""
        self._hold_until = 0.0
        self._hold = HOLD
        self._is_limited = False
        self._refusals = 0
        """429s in a row."""
        self._is_refused = False
        """Whether a limit above one has caused a 429; the limit grows by one from then on."""
        self._stopped = False

    @contextmanager
    def turns(self) -> Iterator[None]:
        """Wait until the limit allows another window, and count the window until it is pulled."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def page(self) -> Iterator[None]:
        """Pull one page inside of :meth:`turns`. If the limit has fallen, wait first until it allows this window."""
        if self._under_way > self.limit:
            self._leave()
            self._enter()
        self._turn.limit_number = self._limit_number
        yield
        if self._finished():
            self._on_growth()

    def on_response(self, status: int, retry_after: float | None) -> None:
        """Adjust the limit to the response to a request of this thread.

        :raises TooManyRequests: it is a 429. Call :meth:`back_off` and repeat the request. Not raised after many 429s
            in a row.
        """
        if status != 429:
            self._refusals = 0
            return
        with self._changed:
            self._refusals += 1
            is_too_long = retry_after is not None and retry_after > LONGEST_PAUSE
            if retry_after is None:
                retry_after = min(0.5 * 2 ** (self._refusals // 8), 2.0)
            seconds = min(max(retry_after, SHORTEST_PAUSE), LONGEST_PAUSE)
            crowded = self._turn.limit_number != self._limit_number or self.limit > 1 or self._under_way > 1
            # Several requests that are refused together lower the limit only once.
            if self._turn.limit_number == self._limit_number:
                if self.limit > 1:
                    self._set_limit(self._former[0] if self._former else self.limit // 2)
                    self._log.info("The bank returned 429. The pull reduces its requests to %d at once.", self.limit)
                    self._is_refused = True
                elif not self._is_limited:
                    self._log.info("The bank limits requests (429). The pull continues as fast as the bank allows.")
                    self._is_limited = True
                self._hold_until = self._clock() + self._hold * seconds
                self._hold = min(2 * self._hold, LONGEST_HOLD) if crowded else self._hold
        is_patient = self._refusals <= IN_A_ROW and self._refusals * seconds <= LONGEST_IN_A_ROW
        if crowded or (is_patient and not is_too_long):
            raise TooManyRequests(seconds)

    def back_off(self, seconds: float) -> None:
        """Give up this thread's turn for some seconds, then wait for another turn."""
        self._leave()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, seconds)
        finally:
            self._enter()

    def stop(self) -> None:
        """Wake all waiting threads, and let no thread wait again."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            while not self._stopped and self._under_way >= self.limit:
                self._changed.wait()
            self._under_way += 1
            self._turn.limit_number = self._limit_number  # also after a 429: the repeated request is under this limit
            self._cold += not self._turn.is_warm
            self._counted_from = None

    def _leave(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._cold -= not self._turn.is_warm
            self._counted_from = None
            self._changed.notify()

    def _finished(self) -> bool:
        """Count a page, and return whether the limit has grown."""
        with self._changed:
            self._cold -= not self._turn.is_warm
            self._turn.is_warm = True
            if self._cold or self._under_way != self.limit:
                return False
            now = self._clock()
            if self._counted_from is None:
                self._counted_from, self._pages = now, 0
                return False
            self._pages += 1
            seconds = now - self._counted_from
            if self._pages < self.limit or (self._pages < ENOUGH and seconds < LONG_ENOUGH):
                return False
            rate = self._pages / seconds if seconds > 0 else float("inf")
            self._counted_from, self._pages = now, 0
            return self._learn(rate)

    def _learn(self, rate: float) -> bool:
        """Compare the pages per second at this limit with the previous one, and return whether the limit has grown."""
        each = self.limit / rate
        if self._former is not None:
            limit, before = self._former
            times = self.limit / limit
            if rate < before * max(1 + GAIN * (times - 1), (1 + GAIN) * times / 2):
                self._set_limit(limit)
                self._factor = 2
                self._rounds, self._patience = self._patience, min(2 * self._patience, LAST_ROUNDS)
                return False
            self._former, self._usual = None, each
        self._usual = min(self._usual or each, each)
        if self.limit > 1 and each > SLOWER * self._usual:
            self._set_limit(self.limit // 2)
            return False
        if self._rounds > 0:
            self._rounds -= 1
            return False
        if self.limit >= self._most or self._clock() < self._hold_until:
            return False
        former = self.limit, rate
        self._set_limit(min(self.limit + 1 if self._is_refused else self.limit * self._factor, self._most))
        self._former = former
        return True

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        self._limit_number += 1
        self._counted_from, self._former, self._usual = None, None, 0.0
        self._changed.notify_all()
