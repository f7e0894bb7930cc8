# SPDX-License-Identifier: Apache-2.0
"""The sandbox's counters since its start or its last reset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Counters:
    """Counters for tests. Requests to the control API (`/_sandbox/...`) are not counted."""

    logins: int = 0
    """Successful logins."""
    login_refused: int = 0
    """Logins refused for a wrong, missing or frozen key."""
    fraud_blocks: int = 0
    """Logins refused by fraud prevention."""
    refreshes: int = 0
    """Successful refreshes."""
    refresh_early: int = 0
    """Refreshes refused because the access token was still valid."""
    refresh_reused: int = 0
    """Refreshes with a token that had been used before, refused or not."""
    refresh_refused: int = 0
    """Refreshes refused for another reason: session over or revoked, token unknown."""
    unauthorized: int = 0
    """401 responses on protected paths, including `permission_401`."""
    permission_401: int = 0
    """401 responses to a valid token, from the paths in `always_401`."""
    unknown_tokens: int = 0
    """Requests with a bearer token that this sandbox never issued."""
    forbidden: int = 0
    """403 responses on protected paths: the key lacks a role."""
    requests: int = 0
    """All requests, including those without a response."""
    by_path: Counter[str] = field(default_factory=Counter)
    """Requests by method and path template: `GET /v3/transactions/{id}`."""
    by_status: Counter[str] = field(default_factory=Counter)
    """Responses by status; `none` counts dropped and hung requests."""
    connections: int = 0
    """Connections with at least one request."""
    peak_concurrent: int = 0
    """The largest number of concurrent requests."""
    rows: int = 0
    """Records sent in lists."""
    too_many_requests: int = 0
    """429 responses, from limits and from faults."""
    consents_required: int = 0
    """412 responses."""
    duplicates: int = 0
    """Writes that were not executed because their `request_id` had been executed before."""
    writes: int = 0
    """Writes that were executed."""
    faults: Counter[str] = field(default_factory=Counter)
    """Applied faults, by kind."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Return the counters from JSON values."""
        made = cls()
        for name, value in found.items():
            setattr(made, name, Counter(value) if isinstance(value, dict) else value)
        return made
