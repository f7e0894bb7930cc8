# SPDX-License-Identifier: Apache-2.0
"""Why there is no session, each error with its remedy; and why a login was necessary."""

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
from intergiro_provider.session.effects import Answer, Outcome

HOUR = 3600.0
SOON = HOUR / 2
"""Seconds after a login in which another one is not what ordinary work needs: a session lives for an hour."""


def key_refused(detail: str) -> IntergiroAuthError:
    """The bank has refused the API key.

    :param detail: status and code of its answer; "" if unknown.
    """
    answered = f" (it answered {detail})" if detail else ""
    return IntergiroAuthError(
        f"Intergiro does not accept the API key{answered}: the key is wrong, frozen or blocked, or belongs to the "
        "other `api` or `environment`. Check the connection's password and extra. A frozen 2d key is renewed in the "
        "customer portal, a blocked one by Intergiro. Clear the task once the key is accepted."
    )


def budget_exhausted(next_at: float, max_logins: int) -> LoginBudgetExhausted:
    """No login is allowed before `next_at`, in epoch seconds."""
    at = datetime.fromtimestamp(next_at, UTC)
    return LoginBudgetExhausted(
        at,
        f"The Intergiro session has ended and cannot be refreshed, and {max_logins} logins within an hour are used up "
        f"(`max_logins_per_hour`). The next login is allowed at {at:%Y-%m-%d %H:%M:%S} UTC; the task can be retried "
        "then. If sessions keep ending early, another deployment or program logs in with the same API key.",
    )


def bank_unavailable(answer: Answer, what: str, retry_after: float) -> BankUnavailable:
    """The bank gave no usable answer to `what`."""
    if answer.outcome is Outcome.UNSENT:
        said = f"the bank cannot be reached for {what} ({answer.why or 'no connection'})"
    elif answer.status >= 300:
        said = f"the bank answered {answer.detail} to {what}"
    else:
        said = f"no usable answer came to {what}" + (f" ({answer.why})" if answer.why else "")
    return BankUnavailable(
        f"There is no Intergiro session: {said}. Nothing else was tried instead, since logging in again and again "
        f"can trip fraud prevention. The task can be retried in {retry_after:.0f} s. *Test connection* tells whether "
        f"{answer.origin or 'the bank'} can be reached, and counts as a login.",
        retry_after=retry_after,
    )


def bank_was_unavailable(detail: str, retry_after: float) -> BankUnavailable:
    """Another task has just found the bank unavailable."""
    answered = f" (it answered {detail})" if detail else " (its log says why)"
    return BankUnavailable(
        f"Another task has just found that Intergiro does not renew the session at present{answered}, so the bank was "
        f"not asked again. The task can be retried in {retry_after:.0f} s.",
        retry_after=retry_after,
    )


def bank_limited(retry_after: float) -> BankUnavailable:
    """The bank has answered 429, and the deadline leaves no time to wait for it."""
    return BankUnavailable(
        "There is no Intergiro session: the bank answers 429 (too many requests) to its renewal, and this task has "
        f"waited as long as it may. The task can be retried in {retry_after:.0f} s. Fewer requests at once will help.",
        retry_after=retry_after,
    )


def shadowed() -> ShadowedError:
    """What was written cannot be read back."""
    return ShadowedError(
        "What was written to the Intergiro session's Variables cannot be read back: an AIRFLOW_VAR_… environment "
        "variable or a secrets backend, on the worker or on the API server, hides them. `airflow intergiro check` "
        "names the Variables. Remove what hides them, then clear the task."
    )


def lock_mismatch() -> LockMismatch:
    """The stored pair was made under another lock."""
    return LockMismatch(
        "The Intergiro session was made under another `lock_conn_id` than this task's connection names. Give every "
        "connection with this API key the same `lock_conn_id`, or reset the session."
    )


def store_too_slow(took: float, limit: float) -> StoreUnavailable:
    """The store is too slow for the lease alone."""
    return StoreUnavailable(
        f"The Airflow API is too slow to renew the Intergiro session safely: writing a Variable took {took:.1f} s, and "
        f"{limit:.1f} s is the limit. A secrets backend is asked at every write and may be what takes the time; else "
        "scale the API server. Or set `lock_conn_id` in the connection's extra: under a distributed lock, writes may "
        "be slow."
    )


def waited_too_long(wait: float) -> StoreUnavailable:
    """The deadline of a renewal has passed."""
    return StoreUnavailable(
        f"The Intergiro session could not be renewed within {wait:.0f} s: another process was renewing it all the "
        "time, or the Airflow API is too slow. The task can be retried; if this happens often, set `lock_conn_id` in "
        "the connection's extra."
    )


def login_reason(pair: TokenPair | None, unsettled: bool, history: LoginHistory, nonce: str) -> tuple[str, bool]:
    """What made a login necessary, for people, and whether they should look into it.

    :param pair: the stored token pair; None: there was none.
    :param unsettled: an earlier renewal may have got tokens that were never stored.
    :param history: the logins that count, this one included.
    :param nonce: under which this login was entered.
    """
    this = next((entry.at for entry in history.logins if entry.nonce == nonce), 0.0)
    earlier = [entry.at for entry in history.logins if entry.nonce != nonce]
    # A session that is not even stored has not come to its end.
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
