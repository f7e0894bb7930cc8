# SPDX-License-Identifier: Apache-2.0
"""Pages of a list: validate the query, and find the page by bisection."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from intergiro_provider.sandbox.collection import FACETS, Collection, Filters
from intergiro_provider.sandbox.settings import Settings

Query = Mapping[str, Sequence[str]]

_PAGING = frozenset({"limit", "starting_after", "ending_before", "sort_by", "sort_type"})
_FILTERS = frozenset({"created_from", "created_to", *FACETS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)")


class Invalid(Exception):
    """A request that is not valid; holds the bank's message and the field."""

    def __init__(self, field: str, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.field, self.message, self.code = field, message, code


@dataclass(frozen=True)
class Page:
    """The body of a page, and its number of records."""

    body: bytes
    rows: int


def page(collection: Collection, query: Query, settings: Settings) -> Page:
    """Return the requested page of a list.

    :raises Invalid: the endpoint does not accept a parameter.
    """
    _known(collection, query)
    limit = _limit(query)
    after, before = _one(query, "starting_after"), _one(query, "ending_before")
    if after is not None and before is not None:
        raise Invalid("ending_before", "Only one of starting_after and ending_before can be given.")
    by_updated = _choice(query, "sort_by", ("created_at", "updated_at")) == "updated_at"
    descending = _choice(query, "sort_type", ("ASC", "DESC")) != "ASC"
    span = (0, len(collection))
    filters: Filters = (None, None, None)
    if collection.facets:
        span = collection.between(
            _moment(query, "created_from"),
            _moment(query, "created_to"),
            from_inclusive=settings.created_from_inclusive,
            to_inclusive=settings.created_to_inclusive,
        )
        filters = tuple(_values(query, name, settings) for name in FACETS)  # type: ignore[assignment]
    positions, start, stop = collection.view(filters, by_updated=by_updated, span=span)
    # A cursor is either the lower bound of the page, which then extends upwards, or the upper bound.
    if after is not None or before is not None:
        key = collection.updated_key if by_updated else None
        cursor = _cursor(collection, after, before)
        if (after is not None) != descending:
            start = max(start, min(_find(bisect_right, positions, cursor, key), stop))
            upwards = True
        else:
            stop = min(stop, max(_find(bisect_left, positions, cursor, key), start))
            upwards = False
    else:
        upwards = not descending
    more = stop - start > limit
    chosen = positions[start : min(start + limit, stop)] if upwards else positions[max(stop - limit, start) : stop]
    rows = collection.rows(reversed(chosen) if descending else chosen)
    return Page(b'{"data":[%b],"has_more":%b}' % (b",".join(rows), b"true" if more else b"false"), len(rows))


def _find(
    bisect: Callable[..., int],
    positions: Sequence[int],
    cursor: int,
    key: Callable[[int], Any] | None,
) -> int:
    return bisect(positions, cursor) if key is None else bisect(positions, key(cursor), key=key)


def _known(collection: Collection, query: Query) -> None:
    known = _PAGING | _FILTERS if collection.facets else _PAGING
    for name, values in query.items():
        if name in known and len(values) > 1 and name not in FACETS:
            raise Invalid(name, "Must be given once.")


def _one(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _limit(query: Query) -> int:
    text = _one(query, "limit")
    if text is None:
        return 10
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise Invalid("limit", "Must be an integer from 1 to 100.", "out_of_range")
    return int(text)


def _choice(query: Query, name: str, choices: tuple[str, ...]) -> str | None:
    text = _one(query, name)
    if text is not None and text not in choices:
        raise Invalid(name, f"Must be one of {', '.join(choices)}.")
    return text


def _cursor(collection: Collection, after: str | None, before: str | None) -> int:
    name, text = ("starting_after", after) if after is not None else ("ending_before", before or "")
    serial = collection.serial(text or "")
    if serial is None:
        raise Invalid(name, "No such record.", "not_found")
    return collection.place[serial]


def _moment(query: Query, name: str) -> float | None:
    text = _one(query, name)
    if text is None:
        return None
    ms = epoch_ms(text)
    if ms is None:
        raise Invalid(name, "Must be an ISO 8601 date-time with an offset.")
    return ms


@lru_cache(maxsize=512)
def epoch_ms(text: str) -> float | None:
    """Return an ISO 8601 date-time with an offset as epoch milliseconds; None if it is not one."""
    # A fraction of a millisecond matters: records have whole milliseconds, and such a bound lies between two.
    if not _DATE_TIME.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment - _EPOCH) / timedelta(milliseconds=1)


def _values(query: Query, name: str, settings: Settings) -> frozenset[str] | None:
    values = query.get(name)
    if not values or (name == "correlation_ids" and settings.correlation_ids_ignored):
        return None
    if "" in values:
        raise Invalid(name, "Must not be empty.")
    return frozenset(values)
