# SPDX-License-Identifier: Apache-2.0
"""The exceptions of this provider.

A *final* exception also derives from ``AirflowFailException``: a retry cannot help, and the task fails at once. Airflow
retries a task that fails with any other exception. If Airflow is not installed, two classes with the same names replace
Airflow's, and :func:`is_final` works in the same way.

No message, ``repr`` or argument holds a token, an API key or account data. :attr:`IntergiroApiError.errors` holds the
bank's text. The message shows only those words of it that cannot be account data.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _has_airflow() -> bool:
    # If Airflow is imported, no metadata is searched: that would take a tenth of the time to parse a DAG file.
    names = ("apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk")
    return "airflow" in sys.modules or any(map(_is_installed, names))


# By metadata and not by `except ImportError`, which would hide why an installed Airflow cannot be imported. The copy in
# dagster-intergiro never needs Airflow's classes.
if TYPE_CHECKING or (not __name__.startswith("dagster_intergiro.") and _has_airflow()):
    from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
else:

    class AirflowException(Exception):
        """Replaces Airflow's class."""

    class AirflowFailException(AirflowException):
        """Replaces Airflow's class."""


__all__ = [
    "BalanceMismatch",
    "BankUnavailable",
    "IntergiroApiError",
    "IntergiroAuthError",
    "IntergiroClientError",
    "IntergiroConsentRequired",
    "IntergiroError",
    "IntergiroForbidden",
    "IntergiroNotFound",
    "IntergiroRateLimited",
    "IntergiroRequestTimeout",
    "IntergiroResponseError",
    "IntergiroServerError",
    "IntergiroValidationError",
    "IntergiroValueError",
    "LoadError",
    "LockMismatch",
    "LoginBudgetExhausted",
    "OutcomeUnknown",
    "PaymentMismatch",
    "PaymentRejected",
    "ShadowedError",
    "StorageError",
    "StoreUnavailable",
    "UnreadableResponse",
]


worded: Callable[[str], str] = str
"""Returns a message as users see it. An integration with another orchestrator sets it, to use its own terms."""


def rebuild(cls: type[IntergiroError], args: tuple[Any, ...], state: dict[str, Any]) -> IntergiroError:
    """Return an error that was raised in another process, without a call of its `__init__`."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class IntergiroError(AirflowException):
    """Base of all errors of this provider. Retriable, unless a subclass is final."""

    shows_cause = False
    """Whether a task's log shows the cause with its frames, because code of the DAG's author raised it."""

    def __str__(self) -> str:
        return worded(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Executors and supervisors pickle exceptions. By default, unpickling calls __init__ with the message alone.
        return rebuild, (type(self), self.args, self.__dict__)


def is_final(error: BaseException) -> bool:
    """Return whether an error is final: Airflow does not retry a task that fails with it."""
    return isinstance(error, AirflowFailException)


class IntergiroValueError(IntergiroError, AirflowFailException, ValueError):
    """A setting or an argument cannot work. The message names it and the remedy. Final."""


class StorageError(IntergiroError, OSError):
    """The `path` of a pull cannot be read or written, such as with a full disk or a missing permission. Retriable."""


class BalanceMismatch(IntergiroError, AirflowFailException):
    """The bank's balances and the transactions in the warehouse do not agree. Final: a retry compares the same data."""


class LoadError(IntergiroError):
    """A database refused a statement of a load. The load was rolled back, or its commit is unknown. Retriable."""


class IntergiroResponseError(IntergiroError):
    """A response with a success status is not what the API promises, such as a page with an old cursor. Retriable."""


class UnreadableResponse(IntergiroResponseError):
    """A response with a success status is not JSON, such as the error page of a proxy. Retriable."""


class IntergiroApiError(IntergiroError):
    """The bank responded with an error status.

    :param status_code: the HTTP status.
    :param errors: the bank's errors, a list of ``{"code", "field", "message"}``; can be empty. Can hold account data.
    :param request_id: the bank's id of the request, for its support; None if it gave none.
    :param retry_after: seconds after which the bank allows another attempt; None if it did not say.
    :param where: method and path of the request, for the message.
    :param said: the text of `errors` that the message can show.
    :param remedy: what to do next; empty: the remedy of the class.
    """

    remedy = "Airflow retries the task if it has retries left."

    def __init__(
        self,
        status_code: int,
        errors: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        *,
        where: str = "",
        said: str = "",
        remedy: str = "",
    ) -> None:
        self.remedy = remedy or self.remedy
        self.status_code = status_code  # type: ignore[assignment]
        self.errors = list(errors)
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(self._describe(where, said))

    def _describe(self, where: str, said: str) -> str:
        text = f"Intergiro returned {self.status_code}" + (f" for {where}" if where else "")
        if said:
            text += f" [{said}]"
        if self.request_id and looks_like_an_id(self.request_id):
            text += f" (request id {self.request_id})"
        if self.retry_after is not None:
            text += f"; it allows another attempt after {self.retry_after:.0f} s"
        return f"{text}. {self.remedy}"


def looks_like_an_id(value: str) -> bool:
    """Return whether a text of the bank is an id, a time or a code, and no text that a person wrote."""
    # Not compiled at import, because each parse of a DAG file imports this module. `re` caches compiled patterns.
    return re.fullmatch(r"[A-Za-z0-9_.:\-\[\]]{1,80}", value) is not None


def shown_id(value: str | None) -> str:
    """Return an id as a message may show it; a value that may be something else is left out."""
    return value if value and looks_like_an_id(value) else "<see the exception's attributes>"


class IntergiroClientError(IntergiroApiError, AirflowFailException):
    """A 4xx status, which the same request would get again. Final."""

    remedy = "Correct the request. “…” replaces words that could be account data."


class IntergiroValidationError(IntergiroClientError):
    """400 or 422: the bank does not accept a parameter or a field. Final."""


class IntergiroForbidden(IntergiroClientError):
    """403: the API key lacks a role for this endpoint. Final."""

    remedy = "Give the API key the role that this endpoint needs, in the Intergiro customer portal."


class IntergiroNotFound(IntergiroClientError):
    """404: no such endpoint or object. Final."""

    remedy = "Check the endpoint, the ids in it and the connection's `api` and `environment`."


class IntergiroConsentRequired(IntergiroClientError):
    """412: a person has to give consent (strong customer authentication) first. Final.

    :param consent_id: the id for ``POST consents/<id>``; None if the bank gave none.
    :param scope: what the consent allows, such as ``["make_payment"]``.
    :param expires_at: when the consent expires, in ISO 8601, as the bank wrote it; None if it did not say.
    """

    def __init__(
        self,
        consent_id: str | None,
        scope: Sequence[str] = (),
        expires_at: str | None = None,
        *,
        request_id: str | None = None,
        where: str = "",
    ) -> None:
        self.consent_id = consent_id
        self.scope = list(scope)
        self.expires_at = expires_at
        super().__init__(412, request_id=request_id, where=where)

    def _describe(self, where: str, said: str) -> str:
        asked = f" to {where}" if where else ""
        scope = ", ".join(s for s in self.scope if looks_like_an_id(s)) or "an unnamed scope"
        until = f", open until {shown_id(self.expires_at)}" if self.expires_at else ""
        return (
            f"Intergiro returned 412{asked}: a person has to give consent for {scope} "
            f"(consent {shown_id(self.consent_id)}{until}). "
            f'Send POST {{"return_url": …}} to consents/{shown_id(self.consent_id)}, and the person to the '
            "redirect_url of the response. Keep this URL out of logs and XCom. Then clear this task. "
            "For a single payment, IntergiroPaymentOperator does all this with `wait_for_consent=True`."
        )


class IntergiroRateLimited(IntergiroApiError):
    """429: too many requests. Retriable, after :attr:`retry_after`."""

    remedy = "Send fewer requests at the same time: set `max_parallel_windows`, or put the tasks into an Airflow pool."


class IntergiroRequestTimeout(IntergiroApiError):
    """408 or 425: the bank did not complete the request in time. Retriable."""

    remedy = "Airflow retries the task if it has retries left."


class IntergiroServerError(IntergiroApiError):
    """5xx: the bank has a fault. Retriable."""

    remedy = "The bank has a fault. Airflow retries the task if it has retries left."


class OutcomeUnknown(IntergiroError, AirflowFailException):
    """The bank may have carried out a write, and could carry it out twice if it is sent again. Final.

    :param where: method and path of the request, such as ``POST /v1/bulk_payments``.
    :param happened: why the outcome is unknown, such as ``no response (ReadTimeout)``.
    :param look_up: a sentence that says how to find out what happened.
    :param key: the request's idempotency key; None if it has none.
    :param status_code: the HTTP status of the response; None without a response.
    :param then: a sentence that says what to do then.
    """

    interrupted = False
    """Whether the task timed out or was stopped while it waited for the response."""

    def __init__(
        self,
        where: str,
        happened: str,
        look_up: str,
        *,
        key: str | None = None,
        status_code: int | None = None,
        then: str = "Then clear this task if nothing was done, or mark it as success.",
    ) -> None:
        self.where = where
        self.key = key
        self.status_code = status_code  # type: ignore[assignment]
        shown = f"idempotency key {shown_id(key)}" if key else "no idempotency key"
        super().__init__(
            f"It is not known whether Intergiro carried out {where} ({shown}): {happened}. The request is not sent "
            f"again. {look_up} {then}"
        )


class PaymentRejected(IntergiroError, AirflowFailException):
    """The bank has rejected a payment, or a person has not given the consent that it needs. Final.

    :param payment_id: the bank's id of the payment; None if it has none.
    """

    def __init__(self, message: str, payment_id: str | None = None) -> None:
        self.payment_id = payment_id
        super().__init__(message)


class PaymentMismatch(IntergiroError, AirflowFailException):
    """The bank's payment for an idempotency key differs from the payment that was requested. Final.

    :param message: names the payment, the fields that differ and what to do next; no account data.
    :param payment_id: the bank's id of the payment; None if unknown.
    """

    def __init__(self, message: str, payment_id: str | None = None) -> None:
        self.payment_id = payment_id
        super().__init__(message)


class IntergiroAuthError(IntergiroError, AirflowFailException):
    """The bank refuses the API key, or refuses this request although the session is valid. Final."""


class LoginBudgetExhausted(IntergiroError):
    """The logins of this hour are used up. One more could trigger the bank's fraud prevention. Retriable.

    :param next_at: when the next login is allowed; an aware datetime.
    """

    def __init__(self, next_at: datetime, message: str = "") -> None:
        self.next_at = next_at
        super().__init__(message or f"The logins of this hour are used up; the next one is allowed at {next_at}.")


class StoreUnavailable(IntergiroError):
    """The Airflow Variables that hold the session cannot be read or written here. Retriable."""


class BankUnavailable(IntergiroError):
    """The bank gave no usable response to a request, or to a renewal of the session. Retriable.

    :param retry_after: seconds after which another attempt makes sense; None if unknown.
    """

    may_have_arrived = False
    """Whether the last request may have reached the bank."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message or "Intergiro is not available. The task can be retried.")


class LockMismatch(IntergiroError):
    """Tasks that share one session have different settings of `lock_conn_id`. Retriable."""


class ShadowedError(IntergiroError, AirflowFailException):
    """An environment variable or a secrets backend hides the session's Variable, so it cannot store tokens. Final."""


def seconds_to_wait(error: BaseException) -> float:
    """Return the seconds until another attempt makes sense, from `retry_after` or `next_at`; 0 if there is neither."""
    if isinstance(error, LoginBudgetExhausted):
        return max(0.0, (error.next_at - datetime.now(UTC)).total_seconds())
    retry_after = getattr(error, "retry_after", None) if isinstance(error, IntergiroError) else None
    return float(retry_after or 0.0)
