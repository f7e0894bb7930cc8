# SPDX-License-Identifier: Apache-2.0
"""The errors of a renewal, each with its remedy, and the reason for a login."""

from __future__ import annotations

from datetime import UTC, datetime

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroAuthError,
    LockMismatch,
    LoginBudgetExhausted,
    ShadowedError,
    StoreUnavailable,
)
from intergiro_provider.session.documents import LoginHistory, TokenPair
from intergiro_provider.session.effects import BankResponse, Outcome

HOUR = 3600.0
SOON = HOUR / 2
"""Seconds after a login within which another login is unexpected: a session lasts an hour."""


def key_refused(detail: str) -> IntergiroAuthError:
    """Return the error for an API key that the bank refuses.

    :param detail: status and code of the response; "" if unknown.
    """
    returned = f" (it returned {detail})" if detail else ""
    return IntergiroAuthError(
        f"Intergiro does not accept the API key{returned}: the key is wrong, frozen or blocked, or belongs to the "
        "other `api` or `environment`. Check the connection's password and extra. A frozen 2d key is renewed in the "
        "customer portal, a blocked one by Intergiro. Clear the task once the key is accepted."
    )


def budget_exhausted(next_at: float, max_logins: int) -> LoginBudgetExhausted:
    """Return the error for a used-up login budget.

    :param next_at: epoch seconds from which the next login is allowed.
    """
    at = datetime.fromtimestamp(next_at, UTC)
    return LoginBudgetExhausted(
        at,
        f"The Intergiro session has ended and cannot be refreshed, and {max_logins} logins within an hour are used up "
        f"(`max_logins_per_hour`). The next login is allowed at {at:%Y-%m-%d %H:%M:%S} UTC; the task can be retried "
        "then. If sessions keep ending early, another deployment or program logs in with the same API key.",
    )


def bank_unavailable(response: BankResponse, what: str, retry_after: float) -> BankUnavailable:
    """Return the error for a response that is missing or cannot be used.

    :param what: the request, such as "the refresh".
    """
    if response.outcome is Outcome.UNSENT:
        said = f"the bank cannot be reached for {what} ({response.why or 'no connection'})"
    elif response.status >= 300:
        said = f"the bank returned {response.detail} for {what}"
    else:
        said = f"the bank gave no usable response to {what}" + (f" ({response.why})" if response.why else "")
    return BankUnavailable(
        f"There is no Intergiro session: {said}. The provider does not log in again now, because repeated logins can "
        f"trigger fraud prevention. The task can be retried in {retry_after:.0f} s. *Test connection* shows whether "
        f"{response.origin or 'the bank'} can be reached, and counts as a login.",
        retry_after=retry_after,
    )


def bank_was_unavailable(detail: str, retry_after: float) -> BankUnavailable:
    """Return the error for a bank that another task has just found unavailable."""
    reason = f" (it returned {detail})" if detail else " (its log says why)"
    return BankUnavailable(
        f"Another task has just found that Intergiro does not renew the session at present{reason}. No request was "
        f"sent to the bank. The task can be retried in {retry_after:.0f} s.",
        retry_after=retry_after,
    )


def bank_limited(retry_after: float) -> BankUnavailable:
    """Return the error for a 429 whose wait exceeds the deadline."""
    return BankUnavailable(
        "There is no Intergiro session: the bank returns 429 (too many requests) to its renewal, and the deadline of "
        f"this task has passed. The task can be retried in {retry_after:.0f} s. Send fewer requests at once.",
        retry_after=retry_after,
    )


def shadowed() -> ShadowedError:
    """Return the error for Variables that an environment variable or a secrets backend hides."""
    return ShadowedError(
        "What was written to the Intergiro session's Variables cannot be read back: an AIRFLOW_VAR_… environment "
        "variable or a secrets backend, on the worker or on the API server, hides them. `airflow intergiro check` "
        "names the Variables. Remove what hides them, then clear the task."
    )


def lock_mismatch() -> LockMismatch:
    """Return the error for a pair that was stored under another lock."""
    return LockMismatch(
        "The Intergiro session was made under another `lock_conn_id` than this task's connection names. Give every "
        "connection with this API key the same `lock_conn_id`, or reset the session."
    )


def store_too_slow(took: float, limit: float) -> StoreUnavailable:
    """Return the error for a store that is too slow without a distributed lock.

    :param took: seconds that the write took.
    :param limit: seconds that it may take.
    """
    return StoreUnavailable(
        f"The Airflow API is too slow to renew the Intergiro session safely: writing a Variable took {took:.1f} s, and "
        f"{limit:.1f} s is the limit. A secrets backend is read at every write and may be slow. Otherwise scale the "
        "API server, or set `lock_conn_id` in the connection's extra: with a distributed lock, writes may be slow."
    )


def waited_too_long(wait: float) -> StoreUnavailable:
    """Return the error for a renewal whose deadline has passed.

    :param wait: the deadline in seconds.
    """
    return StoreUnavailable(
        f"The Intergiro session could not be renewed within {wait:.0f} s: another process was renewing it all the "
        "time, or the Airflow API is too slow. The task can be retried; if this happens often, set `lock_conn_id` in "
        "the connection's extra."
    )


def login_reason(pair: TokenPair | None, unsettled: bool, history: LoginHistory, nonce: str) -> tuple[str, bool]:
    """Return the reason for a login, and whether a person should investigate it.

    :param pair: the stored token pair; None: there was none.
    :param unsettled: an earlier renewal may have received tokens that were never stored.
    :param history: the logins that count, including this one.
    :param nonce: nonce of this login in the history.
    """
    this = next((entry.at for entry in history.logins if entry.nonce == nonce), 0.0)
    earlier = [entry.at for entry in history.logins if entry.nonce != nonce]
    # A session that was never stored has not ended by itself.
    soon = bool(earlier) and this - max(earlier) < (HOUR if pair is None else SOON)
    if pair is None:
        why = "no session was stored"
    elif unsettled:
        why = "the stored refresh token was refused, and an earlier renewal may have lost a newer one"
    else:
        why = "the former session has ended"
    if soon:
        why += f" (only {this - max(earlier):.0f} s after another login)"
    return why, soon or (unsettled and pair is not None)
