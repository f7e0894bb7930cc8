# SPDX-License-Identifier: Apache-2.0
"""Log the progress of a pull every few seconds, and never one line per page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Progress:
    """Counts records and pages, and logs a line every few seconds. Threads may share it.

    :param log: the logger.
    :param what: what is pulled, for the lines.
    :param every: seconds between two lines.
    """

    def __init__(self, log: Any, what: str, every: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = 0
        self.pages = 0
        self._log = log
        self._what = what
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._logged_at = clock()
        self._share: float | None = None
        """The share in the last line."""

    def add(
        self,
        rows: int,
        share: Callable[[], float | None] = lambda: None,
        describe: Callable[[float | None], str] = lambda seconds_left: "",
    ) -> None:
        """Count one page, and its records that were kept.

        :param share: returns the share of the interval that is pulled, 0 to 1; called only for a line.
        :param describe: takes the seconds left, or None if they are unknown, and returns the end of the line.
        """
        with self._lock:
            self.pages += 1
            self.rows += rows
            now = self._clock()
            since = now - self._logged_at
            if since < self._every:
                return
            self._logged_at = now
            rate = self.rows / (now - self._began)
        # By the speed since the last line. A pull begins slowly, with a login and few requests at once.
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
            describe(seconds_left),
        )

    def summary(self, rows: int, parts: int, stored_bytes: int) -> None:
        """Log the result.

        :param rows: the records in the result: more than were counted here, if an earlier attempt pulled some.
        """
        seconds = self._clock() - self._began
        whole = f"; with those of earlier attempts {_count(rows, 'record')}," if rows != self.rows else ","
        self._log.info(
            "%s: pulled %s from %s in %.1f s%s %s in %s",
            self._what, _count(self.rows, "record"), _count(self.pages, "page"), seconds, whole,
            _count(stored_bytes, "byte"), _count(parts, "part"),
        )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
