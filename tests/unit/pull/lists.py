# SPDX-License-Identifier: Apache-2.0
"""A bank's list in memory, for tests of a pull without sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from intergiro_provider.pull.pages import GetPage, read_page


def record(number: int, **fields: Any) -> bytes:
    """Return a record as compact JSON, in the order of its fields."""
    content = {"id": f"r{number:05d}", "amount": -number, "created_at": f"2026-01-01T00:00:{number % 60:02d}.000Z"}
    return json.dumps({**content, **fields}, ensure_ascii=False, separators=(",", ":")).encode()


def page(records: Sequence[bytes], *, has_more: bool) -> bytes:
    """Return the body of a page."""
    return b'{"data":[' + b",".join(records) + b'],"has_more":' + (b"true" if has_more else b"false") + b"}"


def pages_of(bank: Callable[[dict[str, Any]], bytes]) -> GetPage:
    """Return the `get_page` of a pull, from a function that returns the body of the response to a query."""
    return lambda query: read_page(bank(query))


class ListInMemory:
    """Serves records by cursor, and records the queries.

    :param records: in the order of the list; each has an `id`.
    :param broken: called with the number of the request, from 1. Its result is the response, unless it is None.
    """

    def __init__(self, records: Sequence[bytes], broken: Callable[[int], bytes | None] = lambda number: None) -> None:
        self.records = list(records)
        self.queries: list[dict[str, Any]] = []
        self._ids = [json.loads(r)["id"] for r in self.records]
        self._broken = broken

    def __call__(self, query: dict[str, Any]) -> bytes:
        self.queries.append(query)
        if (answer := self._broken(len(self.queries))) is not None:
            return answer
        after = query.get("starting_after")
        start = self._ids.index(after) + 1 if after is not None else 0
        end = start + query.get("limit", 10)
        return page(self.records[start:end], has_more=end < len(self.records))
