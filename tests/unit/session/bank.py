# SPDX-License-Identifier: Apache-2.0
"""The bank of a simulated world: its sessions, its clock and four variants of its behaviour."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

Rule = Literal["strict", "lenient", "revoke", "single"]
RULES: tuple[Rule, ...] = ("strict", "lenient", "revoke", "single")

EPOCH = 1_700_000_000.0
"""The bank's time at the simulated time 0, in epoch seconds."""


@dataclass(slots=True)
class Family:
    """One bank session: all token pairs that follow from one login."""

    key: str
    born: float
    ended: bool = False
    pairs: list[Pair] = field(default_factory=list)


@dataclass(slots=True)
class Pair:
    """An access token and its refresh token."""

    number: int
    family: Family
    born: float

    @property
    def access(self) -> str:
        return f"access-{self.number}"

    @property
    def refresh(self) -> str:
        return f"refresh-{self.number}"

    @property
    def newest(self) -> bool:
        return self.family.pairs[-1] is self


class Bank:
    """The state of the bank. All times are seconds of the simulation.

    :param rule: strict: a refresh token works once; lenient: an old one still works; revoke: a second use ends the
        session; single: a login ends the previous session.
    :param access_life: the lifetime of an access token.
    :param session_life: the lifetime of a session, from its login.
    """

    def __init__(self, rule: Rule = "strict", access_life: float = 900.0, session_life: float = math.inf) -> None:
        self.rule = rule
        self.access_life = access_life
        self.session_life = session_life
        self.keeps_refresh_token = False
        self.refused_keys: set[str] = set()
        self.pairs: dict[str, Pair] = {}
        self.families: list[Family] = []
        self.logins: list[float] = []
        self.refreshes = 0
        self.early = 0
        self.reused = 0
        self.refused_ended = 0
        self.revoked = 0

    def log_in(self, key: str, now: float, person: bool = False) -> Pair:
        """Log in.

        :param person: whether a person logs in, which does not count in the login budget.
        """
        if self.rule == "single":
            for other in self.families:
                other.ended = True
        family = Family(key, now)
        self.families.append(family)
        if not person:
            self.logins.append(now)
        return self._issue(family, now)

    def refresh(self, token: str, now: float) -> Pair | None:
        """Return the next pair; None: the refresh token is refused."""
        pair = self.pairs.get(token)
        if pair is None or self.is_over(pair.family, now):
            self.refused_ended += 1
            return None
        if not pair.newest and self.rule != "lenient":
            self.reused += 1
            if self.rule == "revoke":
                pair.family.ended = True
                self.revoked += 1
            return None
        if now < pair.born + self.access_life:
            self.early += 1
            return None
        self.refreshes += 1
        return self._issue(pair.family, now)

    def accepts(self, access_token: str, now: float) -> bool:
        """Return whether a request with this access token is accepted."""
        pair = self.pairs.get(access_token)
        if pair is None or self.is_over(pair.family, now):
            return False
        return now < pair.born + self.access_life

    def would_refresh(self, refresh_token: str, now: float) -> bool:
        """Return whether this refresh token works, now or after its access token has expired."""
        pair = self.pairs.get(refresh_token)
        if pair is None or self.is_over(pair.family, now):
            return False
        return pair.newest or self.rule == "lenient"

    def key_of(self, access_token: str) -> str | None:
        """Return the API key of this access token."""
        pair = self.pairs.get(access_token)
        return pair.family.key if pair is not None else None

    def end_sessions(self) -> None:
        """End every session early."""
        for family in self.families:
            family.ended = True

    def is_over(self, family: Family, now: float) -> bool:
        """Return whether this session has ended."""
        return family.ended or now >= family.born + self.session_life

    def _issue(self, family: Family, now: float) -> Pair:
        pair = Pair(len(self.pairs) // 2 + 1, family, now)
        family.pairs.append(pair)
        self.pairs[pair.access] = self.pairs[pair.refresh] = pair
        return pair
