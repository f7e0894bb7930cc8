# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a pull, checked before anything is asked. Light: DAG files get here while they are parsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intergiro_provider.exceptions import IntergiroValueError

FILE_FORMATS = ("jsonl", "parquet")
COMPRESSIONS = (None, "gzip", "zstd")
PARQUET_TIMESTAMPS = ("typed", "raw")

MAX_LIMIT = 100
"""The most records that the bank puts on a page; also what we ask for unless told otherwise."""


def page_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """The query of the first page: ``query`` with a checked ``limit``.

    :raises IntergiroValueError: ``limit`` is not a whole number from 1 to 100, or ``ending_before`` is given.
    """
    query = dict(query or {})
    if query.get("ending_before") is not None:
        raise _refused(
            "`ending_before` walks a list backwards and cannot be combined with pulling all pages; "
            "use `sort_type` for the other direction, or `starting_after` for another beginning"
        )
    limit = query.pop("limit", MAX_LIMIT)
    if limit is not None:
        query["limit"] = _checked_limit(limit)
    return query


def _checked_limit(limit: Any) -> int:
    text = limit.strip() if isinstance(limit, str) else limit
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 3:  # what a template renders to
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 1 <= text <= MAX_LIMIT:
        raise _refused(f"`limit` has to be a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
    return text


def newest_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """The query of the page with the newest records that satisfy these filters.

    :raises IntergiroValueError: ``query`` decides about order or pages.
    """
    query = dict(query or {})
    for name in ("limit", "sort_by", "sort_type", "starting_after", "ending_before"):
        if query.get(name) is not None:
            raise _refused(
                f"`{name}` has no place in `query` here: it is always the newest page that is looked at. Give filters "
                "only"
            )
    return query | {"sort_by": "created_at", "sort_type": "DESC", "limit": MAX_LIMIT}


def filters_of(endpoint: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """The query of a pull as its manifest has it: that in the endpoint, too; without bounds and page size."""
    from urllib.parse import parse_qsl

    merged = dict(parse_qsl(endpoint.partition("?")[2], keep_blank_values=True)) | dict(query)
    return {
        name: value if isinstance(value, (str, int, float, list, dict)) else str(value)
        for name, value in merged.items()
        if value is not None and name not in ("limit", "created_from", "created_to")
    }


def refuse_bounds_in(query: Mapping[str, Any]) -> None:
    """Refuse a query that has bounds beside those of the pull.

    :raises IntergiroValueError: ``query`` holds ``created_from`` or ``created_to``.
    """
    for name in ("created_from", "created_to"):
        if query.get(name) is not None:
            raise _refused(f"`{name}` is given twice, as an argument and in `query`: leave it out of `query`")


def check_format(file_format: Any, compression: Any, parquet_timestamps: Any = "typed") -> None:
    """Refuse what is no format at all.

    :raises IntergiroValueError: names the argument and what it may be.
    """
    for name, value, choices in (
        ("file_format", file_format, FILE_FORMATS),
        ("compression", compression, COMPRESSIONS),
        ("parquet_timestamps", parquet_timestamps, PARQUET_TIMESTAMPS),
    ):
        if value not in choices:
            raise _refused(f"`{name}` has to be one of {', '.join(map(repr, choices))}, not {value!r}")


def is_pending(value: Any) -> bool:
    """Whether an operator's argument gets its value only when the task runs: a template, or another task's result."""
    return "{{" in value or "{%" in value if isinstance(value, str) else hasattr(value, "resolve")


def _refused(message: str) -> IntergiroValueError:
    from intergiro_provider.exceptions import IntergiroValueError  # here, for hardly any DAG file needs it

    return IntergiroValueError(message)
