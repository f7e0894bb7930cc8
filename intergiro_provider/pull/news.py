# SPDX-License-Identifier: Apache-2.0
"""What is new in a list since the last look at it, by one page: the newest records.

What was seen is remembered by id, not by the time of the last record alone: records of one instant, and a record that
the bank lists late, are found like any other, as long as they are among the newest on the page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.bounds import format_instant
from intergiro_provider.pull.pages import Page, RecordId, record_id
from intergiro_provider.pull.windows import MILLISECOND

_EVER = datetime(1970, 1, 1, tzinfo=UTC)

Position = dict[str, Any]
"""What was seen, as JSON: the `ids` of the newest records, `newest`, the time of the newest, and `oldest`, that of the
last of them, unless the list held no more."""


def is_position(value: object) -> bool:
    """Whether this can be a position, wherever it comes from."""
    if not isinstance(value, dict) or not isinstance(value.get("ids"), list):
        return False
    try:
        times = [_time(value, "newest"), _time(value, "oldest")]
    except (TypeError, ValueError):
        return False
    return all(isinstance(identity, RecordId) for identity in value["ids"]) and all(
        time is None or time.tzinfo is not None for time in times
    )


def compare(page: Page, seen: Position | None) -> tuple[Position, dict[str, Any] | None]:
    """What has been seen now, and what is new: None if nothing is.

    :param page: the answer to :func:`~intergiro_provider.pull.query.newest_query`.
    :param seen: the position after the last look; None: everything there is counts as seen.
    :return: of what is new the `ids`, the oldest first; whether there is `more` of it than fits the page; and
        `created_from` and `created_to`, with ``created_from ≤ created_at < created_to`` for all of it (both None if
        the records have no such time).
    :raises IntergiroValueError: the list is longer than the page, and does not begin with its newest records.
    :raises IntergiroResponseError: records without an id, which cannot be told apart.
    """
    records = [(record_id(record), _moment(time)) for record, time in zip(page.records, page.created_at, strict=True)]
    times = [time for _, time in records if time is not None]
    if page.has_more and (len(times) < len(records) or times != sorted(times, reverse=True)):
        raise IntergiroValueError(
            "`endpoint`: this list does not give its newest records first when it is asked to, and holds more than "
            "fits a page, so what is new in it cannot be told: pull it on a schedule instead"
        )
    position = {
        "ids": [_known(identity) for identity, _ in records],
        "newest": format_instant(max(times)) if times else None,
        "oldest": format_instant(min(times)) if times and page.has_more else None,
    }
    if seen is None:
        return position, None
    known, oldest = set(seen["ids"]), _time(seen, "oldest")
    # What is older than all that was seen has moved up in place of something that is gone.
    fresh = [r for r in records if r[0] not in known and (oldest is None or r[1] is None or r[1] >= oldest)]
    if not fresh:
        return position, None
    more = page.has_more and len(fresh) == len(records)
    times = [time for _, time in fresh if time is not None]
    start = min([*times, _time(seen, "newest") or _EVER]) if more else min(times, default=None)
    return position, {
        "ids": [identity for identity, _ in reversed(fresh)],
        "more": more,
        "created_from": format_instant(start) if times and start else None,
        "created_to": format_instant(max(times) + MILLISECOND) if times else None,
    }


def _known(identity: RecordId | None) -> RecordId:
    if identity is None:
        raise IntergiroResponseError("the list holds a record without an `id`, so it cannot be told what is new in it")
    return identity


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


def _time(position: Position, name: str) -> datetime | None:
    text = position.get(name)
    return None if text is None else datetime.fromisoformat(text)
