# SPDX-License-Identifier: Apache-2.0
"""The session rules of the bank, enforced strictly, without I/O and with a given clock."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.sandbox import tokens
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.settings import Settings, parse_key


class Refused(Exception):
    """A login, a refresh or an access token is refused."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Session:
    """The session of one login: one key, one API, one sequence of refresh tokens."""

    id: str
    key: str
    api: str
    ends_at: float


@dataclass
class Access:
    """An access token: the epoch seconds at which it expires, and its session."""

    session: Session
    expires_at: float


@dataclass
class Refresh:
    """A refresh token: the access token issued with it, and whether it was used."""

    session: Session
    access: Access
    used: bool = False


@dataclass
class KeyState:
    """The state of fraud prevention for one key and API."""

    logins: deque[float] = field(default_factory=deque)
    blocked: bool = False


class Sessions:
    """All sessions of the bank.

    :param settings: a function, because settings change while the sandbox runs.
    :param clock: returns epoch seconds.
    """

    def __init__(self, settings: Callable[[], Settings], counters: Counters, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self.counters = counters
        self._access: dict[str, Access] = {}
        self._refresh: dict[str, Refresh] = {}
        self._sessions: list[Session] = []
        self._keys: dict[tuple[str, str], KeyState] = {}
        self._issued: list[str] = []
        self._specs: tuple[str, ...] = ()
        self._roles: dict[str, frozenset[str]] = {}

    # For clients

    def login(self, api: str, key: str) -> dict[str, str]:
        """Begin a session at `api` (`v1` or `v3`).

        :raises Refused: wrong or frozen key, or fraud prevention.
        """
        settings, now = self._settings(), self._clock()
        if key not in self.roles():
            self.counters.login_refused += 1
            raise Refused(401, "invalid_api_key", "The API key is not valid.")
        if settings.frozen and api == "v1":
            self.counters.login_refused += 1
            message = "The API key is frozen: renew it in the customer portal."
            raise Refused(403, "api_key_frozen", message)
        self._fraud_prevention(api, key, now)
        session = Session(secrets.token_hex(8), key, api, now + settings.session_life)
        self._sessions.append(session)
        self.counters.logins += 1
        return self._issue(session)

    def refresh(self, api: str, token: str) -> dict[str, str]:
        """Renew a session whose access token has expired.

        :raises Refused: the access token is valid, the refresh token is used or unknown, or the session has ended.
        """
        settings, now = self._settings(), self._clock()
        known = self._refresh.get(token)
        if known is None or known.session.api != api or known.session.key not in self.roles():
            self.counters.refresh_refused += 1
            raise Refused(400, "invalid_refresh_token", "The refresh token is not valid.")
        if known.used:
            self.counters.refresh_reused += 1
            if settings.old_refresh_token == "revokes":
                known.session.ends_at = min(known.session.ends_at, now)
            if settings.old_refresh_token != "works":
                message = "The refresh token was used before."
                raise Refused(400, "refresh_token_used", message)
        if now >= known.session.ends_at:
            self.counters.refresh_refused += 1
            raise Refused(400, "session_expired", "The session is over.")
        if now < known.access.expires_at:
            self.counters.refresh_early += 1
            raise Refused(400, "too_early", "The access token has not expired.")
        self.counters.refreshes += 1
        known.used = True
        return self._issue(known.session)

    def authorize(self, api: str, token: str) -> frozenset[str] | None:
        """Return the roles of an access token at `api`; None if it is not valid."""
        access = self._access.get(token)
        if access is None:
            self.counters.unknown_tokens += 1
            return None
        now = self._clock()
        if now >= access.expires_at or now >= access.session.ends_at or access.session.api != api:
            return None
        return self.roles().get(access.session.key)

    # For the control API

    def end_sessions(self) -> int:
        """End every session; return how many were active."""
        now = self._clock()
        living = [session for session in self._sessions if session.ends_at > now]
        for session in living:
            session.ends_at = now
        return len(living)

    def expire_access(self) -> int:
        """Expire every access token; return how many were valid."""
        now = self._clock()
        living = [access for access in self._access.values() if access.expires_at > now]
        for access in living:
            access.expires_at = now
        return len(living)

    def forget(self) -> None:
        """Delete all sessions and key states; `issued` keeps all tokens."""
        self._access.clear()
        self._refresh.clear()
        self._sessions.clear()
        self._keys.clear()

    @property
    def issued(self) -> list[str]:
        """Return every access and refresh token that was issued."""
        return list(self._issued)

    def state(self) -> dict[str, Any]:
        """Return the numbers of active sessions and access tokens."""
        now = self._clock()
        return {
            "sessions": sum(session.ends_at > now for session in self._sessions),
            "access_tokens": sum(min(a.expires_at, a.session.ends_at) > now for a in self._access.values()),
        }

    def roles(self) -> dict[str, frozenset[str]]:
        """The roles of each API key."""
        specs = self._settings().api_keys
        if specs is not self._specs:
            self._specs, self._roles = specs, dict(map(parse_key, specs))
        return self._roles

    # Internal

    def _fraud_prevention(self, api: str, key: str, now: float) -> None:
        settings = self._settings()
        state = self._keys.setdefault((api, key), KeyState())
        while state.logins and state.logins[0] <= now - settings.login_window:
            state.logins.popleft()
        state.blocked |= len(state.logins) >= settings.login_limit
        if state.blocked:
            self.counters.fraud_blocks += 1
            raise Refused(403, "blocked", "Too many logins: this API key is blocked by fraud prevention.")
        state.logins.append(now)

    def _issue(self, session: Session) -> dict[str, str]:
        token = tokens.refresh_token(session=session.id)
        # Create the access token first: it must expire before the refresh token may be used.
        pair = Refresh(session, Access(session, 0.0))
        access = self._new_access(pair)
        self._refresh[token] = pair
        self._issued.append(token)
        return {"access_token": access, "refresh_token": token}

    def _new_access(self, pair: Refresh) -> str:
        settings, now = self._settings(), self._clock()
        expires_at = min(now + settings.access_token_life, pair.session.ends_at)
        token = tokens.access_token(
            settings.access_token_format, session=pair.session.id, issued_at=now, expires_at=expires_at
        )
        pair.access = self._access[token] = Access(pair.session, expires_at)
        self._issued.append(token)
        return token
