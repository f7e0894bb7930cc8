# SPDX-License-Identifier: Apache-2.0
"""Check the arguments of a pull before any request. Each parse of a DAG file imports this module, so it is light."""

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
"""The protocols of object stores. A path there needs a bucket, and no directory is created."""

MAX_LIMIT = 100
"""The largest number of records on a page of the bank, and our default."""


def page_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the query of the first page.

    :raises IntergiroValueError: ``limit`` is not an integer from 1 to 100, or records could be missed in this order.
    """
    query = dict(query or {})
    order = query.get("sort_by")
    if "updated_at" in [str(name).strip().lower() for name in (order if isinstance(order, (list, tuple)) else [order])]:
        raise IntergiroValueError(
            "`sort_by` is `updated_at`. A record that changes during the pull moves in this order, so the pull could "
            "miss it or get it twice. Leave out `sort_by`. To get changed records, pull the last days again "
            "(`created_from`, `lookback`)."
        )
    if query.get("ending_before") is not None:
        raise IntergiroValueError(
            "`ending_before` reads a list backwards, and a pull reads all pages forwards. Use `sort_type` for the "
            "other direction, or `starting_after` for another beginning."
        )
    limit = query.pop("limit", MAX_LIMIT)
    if limit is not None:
        query["limit"] = limit if is_pending(limit) else _checked_limit(limit)
    return query


def _checked_limit(limit: Any) -> int:
    text = limit.strip() if isinstance(limit, str) else limit
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 3:  # a template renders to text
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 1 <= text <= MAX_LIMIT:
        raise IntergiroValueError(f"`limit` must be an integer from 1 to {MAX_LIMIT}, not {limit!r}.")
    return text


def newest_query(query: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the query of the page with the newest records that match these filters.

    :raises IntergiroValueError: ``query`` names an order or a page.
    """
    query = dict(query or {})
    for name in ("limit", "sort_by", "sort_type", "starting_after", "ending_before"):
        if query.get(name) is not None:
            raise IntergiroValueError(
                f"`query` cannot hold `{name}` here, because only the page with the newest records is requested. Give "
                "filters only."
            )
    return query | {"sort_by": "created_at", "sort_type": "DESC", "limit": MAX_LIMIT}


def filters_of(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters and the order of a pull for its manifest: its query without bounds and page size."""
    return {
        name: value if isinstance(value, (str, int, float, list)) else str(value)
        for name, value in query.items()
        if value is not None and name not in ("limit", "created_from", "created_to")
    }


def refuse_bounds_in(query: Mapping[str, Any]) -> None:
    """Refuse bounds in the query of a pull that has bounds as arguments.

    :raises IntergiroValueError: ``query`` holds ``created_from`` or ``created_to``.
    """
    for name in ("created_from", "created_to"):
        if query.get(name) is not None:
            raise IntergiroValueError(
                f"`{name}` is given twice, as an argument and in the query. Leave it out of the query."
            )


def checked_location(path: Any) -> str:
    """Return the location of a directory in the form that each attempt uses: no double slashes, and none at the end.

    :param path: a URL, or an absolute path.
    :raises IntergiroValueError: it is relative, or names no directory or no bucket.
    """
    text = str(path).strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "file", text
        if not text.startswith("/"):
            raise IntergiroValueError(
                f"`path` must be a URL such as s3://conn_id@bucket/directory, or an absolute path, not {path!r}."
            )
    scheme = scheme.lower()
    authority, _, tail = rest.partition("/")
    segments = [segment for segment in tail.split("/") if segment]
    if scheme in ("file", "local"):
        if authority not in ("", "localhost"):
            raise IntergiroValueError(
                f"`path` is {path!r}, which is relative to the directory of the process. Give an absolute path: "
                f"{scheme}:///… with three slashes."
            )
        if not posixpath.normpath("/" + "/".join(segments)).strip("/"):
            raise IntergiroValueError(f"`path` is {path!r}, which names no directory.")
        authority = ""
    else:
        if scheme in STORES and not authority.rpartition("@")[2]:
            raise IntergiroValueError(
                f"`path` is {path!r}, which names no bucket. Write it like {scheme}://conn_id@bucket/directory."
            )
        if not {".", ".."}.isdisjoint(segments):
            raise IntergiroValueError(
                f"`path` is {path!r}. An object store does not resolve `.` and `..`. Give the path without them."
            )
    location = "/".join([authority, *segments])
    return f"{scheme}://{location}" if mark else location


def check_format(file_format: Any, compression: Any, parquet_timestamps: Any = "typed") -> None:
    """Refuse an unknown format.

    :raises IntergiroValueError: names the argument and its possible values.
    """
    for name, value, choices in (
        ("file_format", file_format, FILE_FORMATS),
        ("compression", compression, COMPRESSIONS),
        ("parquet_timestamps", parquet_timestamps, PARQUET_TIMESTAMPS),
    ):
        if value not in choices:
            raise IntergiroValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, not {value!r}.")
