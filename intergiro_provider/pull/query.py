# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a pull, checked before anything is asked. Light: DAG files get here while they are parsed."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.query import is_pending

FILE_FORMATS = ("jsonl", "parquet")
COMPRESSIONS = (None, "gzip", "zstd")
PARQUET_TIMESTAMPS = ("typed", "raw")

STORES = frozenset({"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
"""The protocols of object stores, in which a bucket is needed and directories are not made."""

MAX_LIMIT = 100
"""The most records that the bank puts on a page; also what we ask for unless told otherwise."""


def page_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """The query of the first page: ``query`` with a checked ``limit``.

    :raises IntergiroValueError: ``limit`` is not a whole number from 1 to 100, or the order or direction loses records.
    """
    query = dict(query or {})
    order = query.get("sort_by")
    if "updated_at" in [str(name).strip().lower() for name in (order if isinstance(order, (list, tuple)) else [order])]:
        raise IntergiroValueError(
            "`sort_by` is `updated_at`, in which a record moves when it changes: while the list is read, records would "
            "be missed or come twice. Leave `sort_by` out. To see what has changed, pull the last days again "
            "(`created_from`, `lookback`)"
        )
    if query.get("ending_before") is not None:
        raise IntergiroValueError(
            "`ending_before` walks a list backwards and cannot be combined with pulling all pages; "
            "use `sort_type` for the other direction, or `starting_after` for another beginning"
        )
    limit = query.pop("limit", MAX_LIMIT)
    if limit is not None:
        query["limit"] = limit if is_pending(limit) else _checked_limit(limit)
    return query


def _checked_limit(limit: Any) -> int:
    text = limit.strip() if isinstance(limit, str) else limit
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 3:  # what a template renders to
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 1 <= text <= MAX_LIMIT:
        raise IntergiroValueError(f"`limit` has to be a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
    return text


def newest_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """The query of the page with the newest records that satisfy these filters.

    :raises IntergiroValueError: ``query`` decides about order or pages.
    """
    query = dict(query or {})
    for name in ("limit", "sort_by", "sort_type", "starting_after", "ending_before"):
        if query.get(name) is not None:
            raise IntergiroValueError(
                f"`{name}` has no place in `query` here: it is always the newest page that is looked at. Give filters "
                "only"
            )
    return query | {"sort_by": "created_at", "sort_type": "DESC", "limit": MAX_LIMIT}


def filters_of(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters and the order of a pull as its manifest has them: its query without bounds and page size."""
    return {
        name: value if isinstance(value, (str, int, float, list)) else str(value)
        for name, value in query.items()
        if value is not None and name not in ("limit", "created_from", "created_to")
    }


def refuse_bounds_in(query: Mapping[str, Any]) -> None:
    """Refuse a query that has bounds beside those of the pull.

    :raises IntergiroValueError: ``query`` holds ``created_from`` or ``created_to``.
    """
    for name in ("created_from", "created_to"):
        if query.get(name) is not None:
            raise IntergiroValueError(
                f"`{name}` is given twice, as an argument and in the query: leave it out of the query"
            )


def checked_location(path: Any) -> str:
    """Return the directory of a result in the one form that each try uses: no doubled slashes, none at the end.

    :param path: a URL, or an absolute path.
    :raises IntergiroValueError: it is relative, names no directory, or no bucket.
    """
    text = str(path).strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "file", text
        if not text.startswith("/"):
            raise IntergiroValueError(
                f"`path` has to be a URL such as s3://conn_id@bucket/directory, or an absolute path, not {path!r}"
            )
    scheme = scheme.lower()
    authority, _, tail = rest.partition("/")
    segments = [segment for segment in tail.split("/") if segment]
    if scheme in ("file", "local"):
        if authority not in ("", "localhost"):
            raise IntergiroValueError(
                f"`path` is {path!r}, which is relative to the directory of the process: give an absolute one, "
                f"{scheme}:///… with three slashes"
            )
        if not posixpath.normpath("/" + "/".join(segments)).strip("/"):
            raise IntergiroValueError(f"`path` is {path!r}, which names no directory")
        authority = ""
    else:
        if scheme in STORES and not authority.rpartition("@")[2]:
            raise IntergiroValueError(
                f"`path` is {path!r}, which names no bucket: write it like {scheme}://conn_id@bucket/directory"
            )
        if not {".", ".."}.isdisjoint(segments):
            raise IntergiroValueError(
                f"`path` is {path!r}: a store keeps `.` and `..` as they are. Give the path without them"
            )
    location = "/".join([authority, *segments])
    return f"{scheme}://{location}" if mark else location


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
            raise IntergiroValueError(f"`{name}` has to be one of {', '.join(map(repr, choices))}, not {value!r}")
