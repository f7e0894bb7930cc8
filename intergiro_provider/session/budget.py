# SPDX-License-Identifier: Apache-2.0
"""The login budget: which logins count, and when the next one is allowed."""

from __future__ import annotations

from collections.abc import Collection

from intergiro_provider.session.documents import Login, LoginHistory, TokenPair
from intergiro_provider.session.effects import Moment

HOUR = 3600.0
CALL_SLACK = 30.0
"""Seconds by which the time of a login at the bank may differ from the Date of its response."""
PAUSE_SLACK = 600.0
"""The longest pause of this process between the entry in the history and the login, in seconds."""
CLOCK_SLACK = 3600.0
"""The largest error of this machine's clock in seconds, while the bank's time is unknown."""


def dated(at: float, nonce: str) -> Login:
    """Return the entry of a login with the time of its response."""
    return Login(at, nonce, at + HOUR + CALL_SLACK)


def reserved(now: Moment, nonce: str) -> Login:
    """Return the entry of a login that is about to be made."""
    return Login(now.at, nonce, now.at + HOUR + (PAUSE_SLACK if now.exact else CLOCK_SLACK))


def known_logins(history: LoginHistory, pair: TokenPair | None) -> tuple[Login, ...]:
    """Return the logins of the history, and the login of the session with the date of the bank.

    The login of the session counts even if it is not in the history: a late write may have removed it.
    """
    if pair is None or not pair.login:
        return history.logins
    of_session = dated(pair.login_at, pair.login)
    return (*(entry for entry in history.logins if entry.nonce != of_session.nonce), of_session)


def next_allowed(counted: Collection[Login], max_logins: int) -> float | None:
    """Return the epoch seconds from which another login is allowed; None: one is allowed now.

    :param counted: the logins of the last hour.
    """
    if len(counted) < max_logins:
        return None
    return sorted(entry.until for entry in counted)[-max_logins]
