# SPDX-License-Identifier: Apache-2.0
"""The bank's cursor as dlt wants it."""

from __future__ import annotations

from typing import Any

from dlt.sources.helpers.rest_client.paginators import BasePaginator


class LastId(BasePaginator):
    """Goes on after the id of the last record."""

    def __init__(self) -> None:
        super().__init__()
        self._last: Any = None

    def update_state(self, response: Any, data: list[Any] | None = None) -> None:
        """Read the next cursor from a response."""
        self._has_next_page = bool(data) and response.json()["has_more"]
        self._last = data[-1]["id"] if data else None

    def update_request(self, request: Any) -> None:
        """Put it into the next query."""
        request.params = {**(request.params or {}), "starting_after": self._last}
