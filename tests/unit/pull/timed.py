# SPDX-License-Identifier: Apache-2.0
"""A list with times in memory, at a bank whose filters and orders can differ from Intergiro's."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from intergiro_provider.exceptions import IntergiroValidationError
from tests.unit.pull.lists import page

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def records_at(milliseconds: Sequence[int], shown: Sequence[int] = (1,)) -> list[bytes]:
    """Return records that were created at these offsets, in this order; times can be equal.

    :param shown: the precision of the displayed times, in milliseconds; several values are used in turn.
    """
    times = [ms - ms % shown[number % len(shown)] for number, ms in enumerate(milliseconds)]
    return [
        json.dumps({"id": f"r{number:05d}", "created_at": stamp(BEGIN + timedelta(milliseconds=ms))}).encode()
        for number, ms in enumerate(times)
    ]


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class TimedList:
    """Serves pages as a bank with these features.

    :param shown: the precision of the displayed times, in milliseconds, in turn. Filters use the exact times.
    :param sorts: whether it applies `sort_by` and `sort_type`; otherwise the newest records come first.
    :param knows_order: whether it accepts a query with an order.
    :param filters: whether it applies the bounds.
    :param includes: whether its bounds are inclusive.
    :param outside_cursor: whether a record outside of the bounds is accepted as cursor.
    :param pause: seconds for a response, up to twice as long.
    """

    milliseconds: list[int]
    shown: tuple[int, ...] = (1,)
    sorts: bool = True
    knows_order: bool = True
    filters: bool = True
    includes: bool = False
    outside_cursor: bool = False
    pause: float = 0.0
    seed: int = 0
    queries: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.milliseconds = sorted(self.milliseconds)
        self.records = records_at(self.milliseconds, self.shown)
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._at_once = 0

    def expected(self, start: int, end: int) -> list[bytes]:
        """Return the records of the interval, the oldest first."""
        return [r for r, ms in zip(self.records, self.milliseconds, strict=True) if start <= ms < end]

    def __call__(self, query: dict[str, Any]) -> bytes:
        with self._lock:
            self.queries.append(dict(query))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            pause = self._random.uniform(0, 2 * self.pause)
        time.sleep(pause)
        try:
            return self._answer(query)
        finally:
            with self._lock:
                self._at_once -= 1

    def _answer(self, query: dict[str, Any]) -> bytes:
        ordered = query.get("sort_by") == "created_at" and query.get("sort_type") == "ASC"
        if "sort_by" in query and not self.knows_order:
            raise IntergiroValidationError(400)
        listed = [n for n, ms in enumerate(self.milliseconds) if self._is_within(query, ms)]
        if not (ordered and self.sorts):
            listed.reverse()
        begin = 0
        if (after := query.get("starting_after")) is not None:
            cursor = int(after[1:])
            if cursor in listed:
                begin = listed.index(cursor) + 1
            else:
                assert self.outside_cursor, "this bank knows no cursor outside of the bounds"
        limit = query["limit"]
        chosen = listed[begin : begin + limit]
        return page([self.records[n] for n in chosen], has_more=begin + limit < len(listed))

    def _is_within(self, query: dict[str, Any], ms: int) -> bool:
        if not self.filters:
            return True
        moment = BEGIN + timedelta(milliseconds=ms)
        start, end = (datetime.fromisoformat(query[name]) for name in ("created_from", "created_to"))
        return start <= moment <= end if self.includes else start < moment < end
