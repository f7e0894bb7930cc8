# SPDX-License-Identifier: Apache-2.0
"""Find the new records of a list, from the page with its newest records.

The position holds the ids of the records that were seen, and not only the time of the last one. So a record with the
same time as another one is found, and so is a record that the bank lists late, if it is among the newest on the page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.bounds import format_instant
from intergiro_provider.pull.pages import Page, RecordId, record_id
from intergiro_provider.pull.windows import MILLISECOND

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

Position = dict[str, Any]
"""The records that were seen, as JSON: `ids`, the ids of the records on the page; `newest`, their latest time; and
`oldest`, their earliest time, or None if the list holds no more records than the page."""


def is_position(value: object) -> bool:
    """Return whether a stored value is a position."""
    if not isinstance(value, dict) or not isinstance(value.get("ids"), list):
        return False
    try:
        times = [_time(value, "newest"), _time(value, "oldest")]
    except (TypeError, ValueError):
        return False
    return all(isinstance(identity, RecordId) for identity in value["ids"]) and all(
        time is None or time.tzinfo is not None for time in times
    )


def find_new_records(page: Page, seen: Position | None) -> tuple[Position, dict[str, Any] | None]:
    """Return the new position, and the new records; None if there are no new records.

    :param page: the response to :func:`~intergiro_provider.pull.arguments.newest_query`.
    :param seen: the position after the last page; None: all records on the page count as seen.
    :return: of the new records, the `ids`, the oldest first; `more`, whether there are more than fit on the page; and
        `created_from` and `created_to`, with ``created_from ≤ created_at < created_to`` for all of them, or None if
        the records have no time.
    :raises IntergiroValueError: the list is longer than the page, and does not begin with its newest records.
    :raises IntergiroResponseError: a record has no id.
    """
    records = [(record_id(record), _aware(time)) for record, time in zip(page.records, page.created_at, strict=True)]
    times = [time for _, time in records if time is not None]
    if page.has_more and (len(times) < len(records) or times != sorted(times, reverse=True)):
        raise IntergiroValueError(
            "`endpoint`: this list is longer than one page and cannot return its newest records first, so new records "
            "cannot be found. Pull it on a schedule instead."
        )
    position = {
        "ids": [_required(identity) for identity, _ in records],
        "newest": format_instant(max(times)) if times else None,
        "oldest": format_instant(min(times)) if times and page.has_more else None,
    }
    if seen is None:
        return position, None
    known, oldest = set(seen["ids"]), _time(seen, "oldest")
    # A record older than all that were seen is not new: it moved onto the page because another record is gone.
    new = [r for r in records if r[0] not in known and (oldest is None or r[1] is None or r[1] >= oldest)]
    if not new:
        return position, None
    more = page.has_more and len(new) == len(records)
    times = [time for _, time in new if time is not None]
    start = min([*times, _time(seen, "newest") or _EARLIEST]) if more else min(times, default=None)
    return position, {
        "ids": [identity for identity, _ in reversed(new)],
        "more": more,
        "created_from": format_instant(start) if times and start else None,
        "created_to": format_instant(max(times) + MILLISECOND) if times else None,
    }


def _required(identity: RecordId | None) -> RecordId:
    if identity is None:
        raise IntergiroResponseError("The list holds a record without an `id`, so new records cannot be found.")
    return identity


def _aware(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


def _time(position: Position, name: str) -> datetime | None:
    text = position.get(name)
    return None if text is None else datetime.fromisoformat(text)
