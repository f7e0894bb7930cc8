# SPDX-License-Identifier: Apache-2.0
"""Why there is no session, each error with what to do about it; and why there had to be another login."""

from __future__ import annotations

from datetime import UTC, datetime

from intergiro_provider.exceptions import BankUnavailable, IntergiroAuthError, LoginBudgetExhausted, ShadowedError
from intergiro_provider.session.documents import Ledger, Session
from intergiro_provider.session.effects import Answer, Outcome

HOUR = 3600.0
SOON = HOUR / 2
"""Seconds after a login in which another one is not what ordinary work needs: a session lives for an hour."""


def key_refused() -> IntergiroAuthError:
    return IntergiroAuthError(
        "Intergiro does not accept the API key: it is wrong, frozen or blocked, or belongs to the other `api` or "
        "`environment`. Check the connection's password and extra; a frozen 2d key is renewed in the customer portal, "
        "a blocked one by Intergiro. Nothing is lost: clear the task once the key is accepted."
    )


def budget_exhausted(next_at: float, max_logins: int) -> LoginBudgetExhausted:
    at = datetime.fromtimestamp(next_at, UTC)
    return LoginBudgetExhausted(
        at,
        f"The Intergiro session has ended and cannot be refreshed, and {max_logins} logins within an hour are used up "
        f"(`max_logins_per_hour`). The next one is allowed at {at:%Y-%m-%d %H:%M:%S} UTC; nothing is lost, and the "
        "task can be tried again then. If sessions keep ending early, something else logs in with the same API key: "
        "another deployment, or a connection with another `session_variable`.",
    )


def bank_unavailable(answer: Answer, what: str, retry_after: float) -> BankUnavailable:
    """The bank gave no answer to `what` that a session could come of."""
    if answer.outcome is Outcome.UNSENT:
        said = f"the bank cannot be reached for {what} ({answer.why or 'no connection'})"
    elif answer.status >= 300:
        said = f"the bank answered {answer.status} to {what}"
    else:
        said = f"no usable answer came to {what}" + (f" ({answer.why})" if answer.why else "")
    return BankUnavailable(
        f"There is no Intergiro session: {said}. Nothing else was tried instead, since logging in again and again "
        f"can trip fraud prevention. Nothing is lost; the task can be tried again in {retry_after:.0f} s. *Test "
        f"connection* tells whether {answer.origin or 'the bank'} can be reached, and counts as a login.",
        retry_after=retry_after,
    )


def shadowed() -> ShadowedError:
    return ShadowedError(
        "What was written to the Intergiro session's Variables cannot be read back: an AIRFLOW_VAR_… environment "
        "variable or a secrets backend, on the worker or on the API server, hides them. Nothing is lost: remove it, or "
        "set another `session_variable` in the connection's extra, then clear the task."
    )


def login_reason(
    session: Session | None, foreign: bool, unsettled: bool, ledger: Ledger, nonce: str
) -> tuple[str, bool]:
    """What made a login necessary, for people, and whether it is one that they should look into.

    :param session: the stored session; None: there was none.
    :param foreign: it belongs to another origin or API key.
    :param unsettled: a former renewal may have got tokens that were never stored.
    :param ledger: the logins that count, this one included.
    :param nonce: under which this login was entered.
    """
    this = next((entry.at for entry in ledger.logins if entry.nonce == nonce), 0.0)
    earlier = [entry.at for entry in ledger.logins if entry.nonce != nonce]
    # A session that is not even stored has not come to its end.
    soon = bool(earlier) and this - max(earlier) < (HOUR if session is None else SOON)
    if session is None:
        why = "no session was stored"
    elif foreign:
        why = "the stored session is of another host or API key"
    elif unsettled:
        why = "the stored refresh token was refused, and an earlier renewal may have lost a newer one"
    else:
        why = "the former session has ended"
    if soon:
        why += f" (only {this - max(earlier):.0f} s after another login)"
    return why, soon or (unsettled and session is not None and not foreign)
