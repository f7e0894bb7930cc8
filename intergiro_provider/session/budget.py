# SPDX-License-Identifier: Apache-2.0
"""The login budget: which logins count, and when the next one is allowed."""

from __future__ import annotations

from collections.abc import Collection

from intergiro_provider.session.documents import Ledger, Login, Session
from intergiro_provider.session.effects import Moment

HOUR = 3600.0
CALL_SLACK = 30.0
"""Seconds by which the bank may see a login earlier or later than its answer says."""
PAUSE_SLACK = 600.0
"""Seconds that this process may be stopped between entering a login and making it."""
CLOCK_SLACK = 3600.0
"""Seconds by which this machine's clock may be wrong, where the bank's is not known."""


def dated(at: float, nonce: str) -> Login:
    """The entry of a login that the bank answered at this time."""
    return Login(at, nonce, at + HOUR + CALL_SLACK)


def reserved(now: Moment, nonce: str) -> Login:
    """The entry of a login that is about to be made."""
    return Login(now.at, nonce, now.at + HOUR + (PAUSE_SLACK if now.exact else CLOCK_SLACK))


def known_logins(ledger: Ledger, session: Session | None) -> tuple[Login, ...]:
    """The ledger's logins, and the one that the session came of as the bank dated it, even where it is not entered."""
    if session is None or not session.login:
        return ledger.logins
    of_session = dated(session.login_at, session.login)
    return (*(entry for entry in ledger.logins if entry.nonce != of_session.nonce), of_session)


def next_allowed(counted: Collection[Login], max_logins: int) -> float | None:
    """Epoch seconds from which another login is allowed; None: one is allowed now.

    :param counted: the logins that still count.
    """
    if len(counted) < max_logins:
        return None
    return sorted(entry.until for entry in counted)[-max_logins]
