# SPDX-License-Identifier: Apache-2.0
"""A list of records in the total order (created_at, id), as compact arrays; records are serialized on demand."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

FACETS = ("account_ids", "statuses", "correlation_ids")

Filters = tuple[frozenset[str] | None, frozenset[str] | None, frozenset[str] | None]
"""The accepted values of each of FACETS; None: no such filter."""


def iso(ms: int) -> str:
    """Return epoch milliseconds in the API's format."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def encode(record: Any) -> bytes:
    """Return JSON as the bank writes it: compact, with Unicode characters unescaped."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


class Collection(ABC):
    """Records by *serial* (order of creation) and by *position* (order of the list).

    `created` holds epoch milliseconds by position, `order` the serial at each position, `place` the position of each
    serial.
    """

    facets: bool = False
    """Whether the list takes created_from, created_to and the FACETS."""

    def __init__(self, created: array[int], order: array[int]) -> None:
        self.created, self.order = created, order
        self._sort_ties()
        self.place = array("I", bytes(4 * len(order)))
        self._number_places()
        self._views: OrderedDict[Any, Sequence[int]] = OrderedDict()

    @abstractmethod
    def raw(self, serial: int) -> bytes:
        """The record's JSON."""

    @abstractmethod
    def id(self, serial: int) -> str:
        """The record's id."""

    @abstractmethod
    def serial(self, id: str) -> int | None:
        """Return the serial of an id; None if there is no such record."""

    @abstractmethod
    def updated(self, serial: int) -> int:
        """Return epoch milliseconds of the record's last change."""

    @abstractmethod
    def facet(self, serial: int) -> tuple[str, str, str]:
        """The values that FACETS filter by."""

    def __len__(self) -> int:
        return len(self.order)

    def record(self, id: str) -> bytes | None:
        """Return the JSON of the record with this id; None if there is none."""
        serial = self.serial(id)
        return None if serial is None else self.raw(serial)

    def rows(self, positions: Iterable[int]) -> list[bytes]:
        """The JSON of the records at these positions."""
        raw, order = self.raw, self.order
        return [raw(order[position]) for position in positions]

    def between(
        self, low: float | None, high: float | None, *, from_inclusive: bool, to_inclusive: bool
    ) -> tuple[int, int]:
        """Return the range of positions created in an interval of epoch milliseconds."""
        start, stop = 0, len(self.order)
        if low is not None:
            start = (bisect_left if from_inclusive else bisect_right)(self.created, low)
        if high is not None:
            stop = (bisect_right if to_inclusive else bisect_left)(self.created, high)
        return start, max(start, stop)

    def view(self, filters: Filters, *, by_updated: bool, span: tuple[int, int]) -> tuple[Sequence[int], int, int]:
        """Return the positions that match, in the requested order, as (sequence, start, stop).

        O(log n), except for the first request with a filter or order.
        """
        if by_updated:
            positions = self._remember(
                (filters, span),
                lambda: array("I", sorted(self._passing(filters, range(*span)), key=self.updated_key)),
            )
            return positions, 0, len(positions)
        if filters == (None, None, None):
            return range(len(self.order)), *span
        positions = self._remember((filters,), lambda: array("I", self._passing(filters, range(len(self.order)))))
        return positions, bisect_left(positions, span[0]), bisect_left(positions, span[1])

    def updated_key(self, position: int) -> tuple[int, int]:
        """Return the sort key of a list that is sorted by updated_at."""
        return self.updated(self.order[position]), position

    def insert(self, serials: Sequence[int], created: int) -> None:
        """Add the next serials at their positions."""
        start, stop = bisect_left(self.created, created), bisect_right(self.created, created)
        self.created[stop:stop] = array("q", [created]) * len(serials)
        self.order[start:stop] = array("I", sorted([*self.order[start:stop], *serials], key=self.id))
        self.place.extend(serials)
        self._number_places(start)
        self.touched()

    def touched(self) -> None:
        """Discard the derived indexes."""
        self._views.clear()

    def _passing(self, filters: Filters, positions: Iterable[int]) -> Iterable[int]:
        if filters == (None, None, None):
            return positions
        accounts, statuses, correlations = filters
        return (
            position
            for position, (account, status, correlation) in ((p, self.facet(self.order[p])) for p in positions)
            if (accounts is None or account in accounts)
            and (statuses is None or status in statuses)
            and (correlations is None or correlation in correlations)
        )

    def _remember(self, key: Any, make: Callable[[], Sequence[int]]) -> Sequence[int]:
        if key in self._views:
            self._views.move_to_end(key)
        else:
            self._views[key] = make()
            if len(self._views) > 32:
                self._views.popitem(last=False)
        return self._views[key]

    def _sort_ties(self) -> None:
        created, order = self.created, self.order
        start = 0
        while start < len(created):
            stop = start + 1
            while stop < len(created) and created[stop] == created[start]:
                stop += 1
            if stop - start > 1:
                order[start:stop] = array("I", sorted(order[start:stop], key=self.id))
            start = stop

    def _number_places(self, start: int = 0) -> None:
        place = self.place
        for position in range(start, len(self.order)):
            place[self.order[position]] = position


class Rows(Collection):
    """A small list of dicts with `id`, `created_at` and optionally `updated_at`."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.values = sorted(rows, key=lambda row: (row["created_at"], row["id"]))
        self._raw = [encode(row) for row in self.values]
        self._serials = {row["id"]: serial for serial, row in enumerate(self.values)}
        moments = [_ms(row["created_at"]) for row in self.values]
        super().__init__(array("q", moments), array("I", range(len(moments))))

    def raw(self, serial: int) -> bytes:
        return self._raw[serial]

    def id(self, serial: int) -> str:
        return str(self.values[serial]["id"])

    def serial(self, id: str) -> int | None:
        return self._serials.get(id)

    def updated(self, serial: int) -> int:
        row = self.values[serial]
        return _ms(row.get("updated_at", row["created_at"]))

    def facet(self, serial: int) -> tuple[str, str, str]:
        row = self.values[serial]
        return str(row.get("account_id", "")), str(row.get("status", "")), str(row.get("correlation_id", ""))


def _ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1000)
