# SPDX-License-Identifier: Apache-2.0
"""How many windows are worked on at once: found out as the pull goes.

The limit starts at one and doubles while that pays, as in TCP's slow start. A limit is judged by the pages per second
that come while as many windows as it allows are worked on, all of them with an open connection. A limit beyond what the
bank or this process can do brings no more pages, and the former one returns. It is tried again later, each time after
twice as many rounds.

A 429 while the limit is above one halves it, or takes back its last growth, and is no failure of the request: the
caller asks again. From then on the limit grows by one at a time, after a pause (additive increase, multiplicative
decrease). With a limit of one it is the bank's rate limit, which a single cursor would meet, too: the pull goes on as
the bank allows it, and only after many refusals in a row are they a failure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GAIN = 0.25
"""A doubled limit has to bring so many more pages per second, as a share; a smaller step in proportion. Of a limit that
has grown more the last doubling has to, were the others worth all that they can be."""
ENOUGH, LONG_ENOUGH = 8, 0.01
"""A rate is that of a round, one page for each that is under way; of so many pages, or so many seconds, at least."""
SLOWER = 3.0
"""A page that takes so many times as long as it did at the same limit shows that the bank slows down."""
FIRST_ROUNDS, LAST_ROUNDS = 4, 64
"""Rounds that a limit stays after a larger one did not pay, the first time and at the most."""
HOLD = 20.0
"""After a 429 the limit does not grow for so many times as long as the bank asked to wait, so that trying costs 5 %."""
LONGEST_HOLD = 160.0
"""As :data:`HOLD`, which doubles with each 429 that the limit has caused."""
IN_A_ROW = 24
"""Refusals without any other response between them that are waited for here; later ones count as failed attempts."""
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 60.0
"""Seconds; where one request at a time is told to wait longer, that is for Airflow's retries."""
LONGEST_IN_A_ROW = 300.0
"""Seconds of such waits in a row, at most."""


class Crowded(Exception):
    """The bank has answered 429: it gets requests faster than it allows.

    :param seconds: to wait before the request is sent again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Turn(threading.local):
    """What a thread knows of itself.

    :param limit_number: under which limit its page began.
    :param is_warm: whether it has finished a page: the first one opens a connection.
    """

    limit_number = 0
    is_warm = False


class Pace:
    """Shared by the threads of a pull, each of which works on a window in :meth:`turns` of its own.

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
        """Threads under way that have not finished a page yet."""
        self._counted_from: float | None = None
        """When as many as allowed were under way, all of them warm; the pages since then are counted."""
        self._pages = 0
        self._former: tuple[int, float] | None = None
        """While a higher limit is on trial: the one before, and its pages per second."""
        self._usual = 0.0
        """Seconds for a page at this limit, at the best; 0: unknown."""
        self._factor = 4
        """A limit grows so many times; less once a higher one did not pay."""
        self._patience = FIRST_ROUNDS
        self._rounds = 0
        """So many more rounds before a higher limit is tried."""
        self._hold_until = 0.0
        self._hold = HOLD
        self._is_limited = False
        self._refusals = 0
        """In a row."""
        self._is_refused = False
        """Whether a higher limit has led to a 429: it grows by one from then on."""
        self._stopped = False

    @contextmanager
    def turns(self) -> Iterator[None]:
        """Wait until another window may be worked on, and count it until it is done."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def page(self) -> Iterator[None]:
        """Work on one page, within :meth:`turns`; first wait if the limit has fallen below what is under way."""
        if self._under_way > self.limit:
            self._leave()
            self._enter()
        self._turn.limit_number = self._limit_number
        yield
        if self._finished():
            self._on_growth()

    def answered(self, status: int, retry_after: float | None) -> None:
        """Take note of a response to a request of this thread.

        :raises Crowded: it is a 429: ask again after :meth:`back_off`. Not raised after many in a row.
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
            # Requests that are refused together are one reason to send fewer, not many.
            if self._turn.limit_number == self._limit_number:
                if self.limit > 1:
                    self._set_limit(self._former[0] if self._former else self.limit // 2)
                    self._log.info("The bank asks for fewer requests (429): %d at once from now on.", self.limit)
                    self._is_refused = True
                elif not self._is_limited:
                    self._log.info("The bank limits requests (429): the pull goes on as fast as that allows.")
                    self._is_limited = True
                self._hold_until = self._clock() + self._hold * seconds
                self._hold = min(2 * self._hold, LONGEST_HOLD) if crowded else self._hold
        is_patient = self._refusals <= IN_A_ROW and self._refusals * seconds <= LONGEST_IN_A_ROW
        if crowded or (is_patient and not is_too_long):
            raise Crowded(seconds)

    def back_off(self, seconds: float) -> None:
        """Let others have this thread's turn for so long, then wait for another."""
        self._leave()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, seconds)
        finally:
            self._enter()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            while not self._stopped and self._under_way >= self.limit:
                self._changed.wait()
            self._under_way += 1
            self._cold += not self._turn.is_warm
            self._counted_from = None

    def _leave(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._cold -= not self._turn.is_warm
            self._counted_from = None
            self._changed.notify()

    def _finished(self) -> bool:
        """Count a page; whether the limit has grown."""
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
        """Take note of the pages per second at this limit; whether the limit has grown."""
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
