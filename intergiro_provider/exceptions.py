# SPDX-License-Identifier: Apache-2.0
"""Every error that this provider raises.

Airflow retries a task that fails with an :class:`IntergiroError`, unless the error also derives from
``AirflowFailException``: a retry cannot help, and the task fails at once. Where Airflow is not installed, two classes
of the same names stand in for Airflow's, and :func:`is_final` says the same.

No message, ``repr`` or argument holds a token, an API key or account data. What the bank wrote is kept in
:attr:`IntergiroApiError.errors` for code to look at; the message shows what of it cannot be account data.
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
    # What is imported needs no look-up, which would be a tenth of a DAG file's parse.
    names = ("apache-airflow", "apache-airflow-core", "apache-airflow-task-sdk")
    return "airflow" in sys.modules or any(map(_is_installed, names))


# By metadata and not by `except ImportError`: the reason why an installed Airflow cannot be imported must be seen. The
# copy in dagster-intergiro never needs Airflow's classes, whatever is installed beside it.
if TYPE_CHECKING or (not __name__.startswith("dagster_intergiro.") and _has_airflow()):
    from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
else:

    class AirflowException(Exception):
        """Stands in for Airflow's class."""

    class AirflowFailException(AirflowException):
        """Stands in for Airflow's class."""


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
"""How messages are shown: an integration with another orchestrator than Airflow puts its own words into them here."""


def rebuild(cls: type[IntergiroError], args: tuple[Any, ...], state: dict[str, Any]) -> IntergiroError:
    """An error that was raised elsewhere, as it was there, without calling its `__init__`."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class IntergiroError(AirflowException):
    """Base of all errors of this provider; retriable unless a subclass says otherwise."""

    shows_cause = False
    """Whether a task's log shows the cause with its frames: it was raised by code of the DAG's author."""

    def __str__(self) -> str:
        return worded(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Executors and supervisors pickle exceptions; the default would call __init__ with the message alone.
        return rebuild, (type(self), self.args, self.__dict__)


def is_final(error: BaseException) -> bool:
    """Whether Airflow does not retry a task that fails with this error."""
    return isinstance(error, AirflowFailException)


class IntergiroValueError(IntergiroError, AirflowFailException, ValueError):
    """A setting or an argument that cannot work; the message names it and the remedy. Final."""


class StorageError(IntergiroError, OSError):
    """The place that a pull's `path` names could not be read or written: a full disk, no rights, a store that is down.
    Retriable."""


class BalanceMismatch(IntergiroError, AirflowFailException):
    """The bank's balances and the transactions in the warehouse do not agree. Final: a retry compares the same."""


class LoadError(IntergiroError):
    """A warehouse refused a statement of a load, which was rolled back. Retriable."""


class IntergiroResponseError(IntergiroError):
    """A successful answer that is not what the API promises: not JSON, not a page, a cursor that stands still."""


class UnreadableResponse(IntergiroResponseError):
    """A successful response that is not JSON, such as a proxy's error page or a body cut short. Retriable."""


class IntergiroApiError(IntergiroError):
    """The bank answered a request with an error status.

    :param status_code: the HTTP status.
    :param errors: what the bank said, a list of ``{"code", "field", "message"}``; may be empty. May hold account data.
    :param request_id: the bank's id of this request, for its support; None if it gave none.
    :param retry_after: seconds after which the bank allows another try; None if it did not say.
    :param said: what may be shown of `errors`.
    :param remedy: what to do next; "": the remedy of the class.
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
        text = f"Intergiro answered {self.status_code}" + (f" to {where}" if where else "")
        if said:
            text += f" [{said}]"
        if self.request_id and looks_like_an_id(self.request_id):
            text += f" (request id {self.request_id})"
        if self.retry_after is not None:
            text += f"; it allows another try after {self.retry_after:.0f} s"
        return f"{text}. {self.remedy}"


def looks_like_an_id(value: str) -> bool:
    """Whether a text of the bank's is an id, a time or a name, and nothing that somebody wrote."""
    # Not compiled at import: every parse of a DAG file imports this module, and re keeps what it has compiled.
    return re.fullmatch(r"[A-Za-z0-9_.:\-\[\]]{1,80}", value) is not None


def shown_id(value: str | None) -> str:
    """Return an id as a message may show it; a value that may be something else is left out."""
    return value if value and looks_like_an_id(value) else "<see the exception's attributes>"


class IntergiroClientError(IntergiroApiError, AirflowFailException):
    """A 4xx status that the same request will meet again. Final."""

    remedy = "The request itself has to change. “…” stands for what could be account data."


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

    :param consent_id: the id to send to ``POST consents/<id>``; None if the bank named none.
    :param scope: what the consent is for, such as ``["make_payment"]``.
    :param expires_at: ISO 8601 time at which this consent lapses, as the bank wrote it; None if it did not say.
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
            f"Intergiro answered 412{asked}: a person has to give consent for {scope} "
            f"(consent {shown_id(self.consent_id)}{until}). "
            f'POST {{"return_url": …}} to consents/{shown_id(self.consent_id)}, send the person to the '
            "redirect_url of the answer, then clear this task."
        )


class IntergiroRateLimited(IntergiroApiError):
    """429: too many requests. Retriable, after :attr:`retry_after`."""

    remedy = "Fewer requests at once will help: see `max_parallel_windows`, or put the tasks into an Airflow pool."


class IntergiroRequestTimeout(IntergiroApiError):
    """408 or 425: the bank gave up on this request for now. Retriable."""

    remedy = "Try again later."


class IntergiroServerError(IntergiroApiError):
    """5xx: the bank has a fault. Retriable."""

    remedy = "The bank has a fault; Airflow retries the task if it has retries left."


class OutcomeUnknown(IntergiroError, AirflowFailException):
    """The bank may have carried out a write, and repeating it could carry it out twice. Final.

    :param where: method and path of the request, such as ``POST /v1/bulk_payments``.
    :param happened: why the outcome is unknown, such as ``no response (ReadTimeout)``.
    :param look_up: how to find out what happened; a sentence.
    :param key: the request's idempotency key; None if it has none.
    :param status_code: the HTTP status of the response; None without one.
    :param then: what to do after the look-up; a sentence.
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
    """The bank has rejected a payment, and does so again for the same idempotency key. Final.

    :param payment_id: the bank's id of the payment; None if it made none.
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
    """The bank refuses the API key, or refuses this request although the session lives. Final."""


class LoginBudgetExhausted(IntergiroError):
    """One more login within the hour could trip the bank's fraud prevention, so none is made. Retriable.

    :param next_at: when the next login is allowed; an aware datetime.
    """

    def __init__(self, next_at: datetime, message: str = "") -> None:
        self.next_at = next_at
        super().__init__(message or f"The logins of this hour are used up; the next one is allowed at {next_at}.")


class StoreUnavailable(IntergiroError):
    """The Airflow Variables that hold the session cannot be read or written here. Retriable."""


class BankUnavailable(IntergiroError):
    """The bank gave no usable answer while the session was being renewed. Retriable.

    :param retry_after: seconds after which another try makes sense; None if unknown.
    """

    may_have_arrived = False
    """Whether the last request may have reached the bank."""

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message or "Intergiro is not available at present. The task can be tried again later.")


class LockMismatch(IntergiroError):
    """Tasks that share one session do not share one `lock_conn_id`. Retriable, once all agree."""


class ShadowedError(IntergiroError, AirflowFailException):
    """Something hides the session's Variable, so a rotated token cannot be kept there. Final."""


def wait_asked_for(error: BaseException) -> float:
    """Seconds after which another try makes sense, by the error's `retry_after` or `next_at`; 0 if it has neither."""
    if isinstance(error, LoginBudgetExhausted):
        return max(0.0, (error.next_at - datetime.now(UTC)).total_seconds())
    retry_after = getattr(error, "retry_after", None) if isinstance(error, IntergiroError) else None
    return float(retry_after or 0.0)
