# SPDX-License-Identifier: Apache-2.0
"""What the sandbox has counted since it started or since its last reset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Counters:
    """Counts that tests read. Calls of the control API (`/_sandbox/...`) are in none of them."""

    logins: int = 0
    """Logins that were let in."""
    login_refused: int = 0
    """Logins refused for a wrong, missing or frozen key."""
    fraud_blocks: int = 0
    """Logins refused by fraud prevention."""
    refreshes: int = 0
    """Refreshes that gave a new pair."""
    refresh_early: int = 0
    """Refreshes refused because the access token still lived."""
    refresh_reused: int = 0
    """Refreshes with a token that had been used before, whatever became of them."""
    refresh_refused: int = 0
    """Refreshes refused for another reason: session over or revoked, token unknown."""
    unauthorized: int = 0
    """401 answers on protected paths, `permission_401` included."""
    permission_401: int = 0
    """401 answers from the paths in `always_401` to a token that lives."""
    unknown_tokens: int = 0
    """Requests with a bearer that this sandbox never issued."""
    forbidden: int = 0
    """403 answers on protected paths: the key lacks a role."""
    requests: int = 0
    """All requests, those that got no answer included."""
    by_path: Counter[str] = field(default_factory=Counter)
    """Requests by method and path template: `GET /v3/transactions/{id}`."""
    by_status: Counter[str] = field(default_factory=Counter)
    """Answers by status; dropped and hung ones are under `none`."""
    connections: int = 0
    """Connections on which at least one request came."""
    peak_concurrent: int = 0
    """The largest number of requests in the sandbox's hands at once."""
    rows: int = 0
    """Records served in lists."""
    too_many_requests: int = 0
    """429 answers, from limits and from faults."""
    consents_required: int = 0
    """412 answers."""
    duplicates: int = 0
    """Writes whose `request_id` had been executed before, and which therefore were not executed again."""
    writes: int = 0
    """Writes that were executed."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults that struck, by kind."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`."""
        made = cls()
        for name, value in found.items():
            setattr(made, name, Counter(value) if isinstance(value, dict) else value)
        return made
