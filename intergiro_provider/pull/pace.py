# SPDX-License-Identifier: Apache-2.0
"""How many requests may be under way at once: fewer after the bank has said 429, more again later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GOOD_ANSWERS = 16
"""So many answers without a 429, and one request more may be under way."""
LONGEST_PAUSE = 60.0
"""Seconds; a bank that asks for more is tried again after these by the one request that it refused."""


class Pace:
    """Shared by the threads of a pull: each asks for leave before its next page.

    :param most: requests under way at once, at the best of times.
    """

    def __init__(self, most: int, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.allowed = most
        self._most = most
        self._log = log
        self._clock = clock
        self._changed = threading.Condition()
        self._under_way = 0
        self._good = 0
        self._not_before = 0.0
        self._stopped = False

    @contextmanager
    def leave(self) -> Iterator[None]:
        """Wait until another request may be sent, and count it while it is under way."""
        with self._changed:
            while not self._stopped:
                now = self._clock()
                if now < self._not_before:
                    self._changed.wait(self._not_before - now)
                elif self._under_way >= self.allowed:
                    self._changed.wait()
                else:
                    break
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def answered(self, status: int, retry_after: float | None) -> None:
        """Take note of an answer."""
        with self._changed:
            if status != 429:
                self._good += 1
                if self._good >= GOOD_ANSWERS and self.allowed < self._most:
                    self._good = 0
                    self.allowed += 1
                    self._changed.notify()
                return
            now = self._clock()
            # Those under way with the one that was refused are refused together: that is one warning, not many.
            if now >= self._not_before and self.allowed > 1:
                self.allowed = (self.allowed + 1) // 2
                self._log.info("The bank asks for fewer requests (429): %d at once from now on.", self.allowed)
            self._good = 0
            self._not_before = max(self._not_before, now + min(max(retry_after or 0.0, 0.5), LONGEST_PAUSE))

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
