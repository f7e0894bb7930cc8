# SPDX-License-Identifier: Apache-2.0
"""Saying every few seconds how far a pull is; never a line per page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Progress:
    """Counts records and pages, and logs one line at most every ``every`` seconds. Any thread may count.

    :param log: where the lines go. :param what: what is pulled, for the lines.
    """

    def __init__(self, log: Any, what: str, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = 0
        self.pages = 0
        self._log = log
        self._what = what
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._said = clock()
        self._share: float | None = None
        """As the last line said."""

    def add(
        self,
        rows: int,
        share: Callable[[], float | None] = lambda: None,
        standing: Callable[[float | None], str] = lambda seconds_left: "",
    ) -> None:
        """Count one page and what was kept of it.

        :param share: says which share of the whole has come, 0 to 1; asked only when a line is due.
        :param standing: takes the seconds left, None where they are unknown, and says how far the whole is.
        """
        with self._lock:
            self.pages += 1
            self.rows += rows
            now = self._clock()
            since = now - self._said
            if since < self._every:
                return
            self._said = now
            rate = self.rows / (now - self._began)
        # By the pace since the last line: the beginning is slower, with a login and few requests at once.
        before, self._share = self._share, share()
        seconds_left = None
        if before is not None and self._share is not None and self._share > before:
            seconds_left = since * (1 - self._share) / (self._share - before)
        self._log.info(
            "%s: %s so far, from %s (%.0f records/s)%s",
            self._what,
            _count(self.rows, "record"),
            _count(self.pages, "page"),
            rate,
            standing(seconds_left),
        )

    def summary(self, rows: int, parts: int, stored_bytes: int) -> None:
        """Say what it came to.

        :param rows: in the result; more than were counted here if an earlier try had pulled some.
        """
        seconds = self._clock() - self._began
        whole = f"; with those of an earlier try {_count(rows, 'record')}," if rows != self.rows else ","
        self._log.info(
            "%s: pulled %s from %s in %.1f s%s %s in %s",
            self._what, _count(self.rows, "record"), _count(self.pages, "page"), seconds, whole,
            _count(stored_bytes, "byte"), _count(parts, "part"),
        )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
