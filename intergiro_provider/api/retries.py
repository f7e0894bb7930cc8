# SPDX-License-Identifier: Apache-2.0
"""Retries: which failures are transient, and when and how often a request is repeated."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import requests
import tenacity
import urllib3.exceptions

from intergiro_provider.api.errors import described, retry_after_of
from intergiro_provider.exceptions import UnreadableResponse

log = logging.getLogger("intergiro_provider.api")

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 531)})
"""A CDN returns 520 to 530 if it has no response from the bank."""

NEVER_SENT = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidProxyURL,
)
"""requests refuses these before it opens a connection."""
HANDSHAKE_FAILURES = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "HTTP_REQUEST"}
)

ATTEMPTS = 6
DEADLINE = 300.0
"""Seconds after which a request is not repeated."""
LONGEST_WAIT = 60.0
"""Seconds; a bank that asks for a longer wait gets it from Airflow's retries."""


def retrying(*, repeatable: bool) -> tenacity.Retrying:
    """Return a tenacity object that retries a request, with full jitter and a deadline.

    :param repeatable: whether the request may be sent again although the bank may have carried it out.
    """
    unsent = tenacity.retry_if_exception(certainly_unsent_and_transient)
    failed = tenacity.retry_if_exception(is_transient) | tenacity.retry_if_result(is_transient_status)
    return tenacity.Retrying(
        retry=unsent | failed if repeatable else unsent,
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_before_delay(DEADLINE),
        wait=tenacity.wait_random_exponential(max=LONGEST_WAIT) + _wait_as_the_bank_asks(),
        before_sleep=_log_retry,
        retry_error_callback=_last_outcome,
    )


class _wait_as_the_bank_asks(tenacity.wait.wait_base):
    """Wait for the time in Retry-After."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        outcome = retry_state.outcome
        return 0.0 if outcome is None or outcome.failed else retry_after_of(outcome.result().headers) or 0.0


def _last_outcome(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _log_retry(state: tenacity.RetryCallState) -> None:
    assert state.outcome is not None
    request: requests.PreparedRequest = state.args[0]
    if state.outcome.failed:
        happened: object = type(state.outcome.exception()).__name__
    else:
        happened = state.outcome.result().status_code
        state.outcome.result().close()
    log.warning(
        "%s: %s; the request is repeated in %.1f s (attempt %d of %d).",
        described(request.method, request.url), happened, state.upcoming_sleep, state.attempt_number + 1, ATTEMPTS,
    )  # fmt: skip


def is_transient_status(response: requests.Response) -> bool:
    """Return whether the same request may get another response soon."""
    if response.status_code not in RETRIED_STATUSES:
        return False
    return (retry_after_of(response.headers) or 0.0) <= LONGEST_WAIT


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt may succeed: after network errors, but not with a wrong certificate or URL."""
    if isinstance(error, UnreadableResponse) or isinstance(_tls_cause(error), ssl.SSLEOFError):
        return True  # SSLEOFError: a kept connection that the other side has closed
    return isinstance(
        error,
        (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ),
    ) and not isinstance(error, requests.exceptions.SSLError)


def certainly_unsent_and_transient(error: BaseException) -> bool:
    """Return whether the request was not sent, and another attempt may succeed."""
    return certainly_unsent(error) and not refused_by_requests(error)


def refused_by_requests(error: BaseException) -> bool:
    """Return whether requests has refused to send the request."""
    if not isinstance(error, NEVER_SENT):
        return False
    # requests raises the same error for a header in the bank's response.
    return not (error.args and isinstance(error.args[0], urllib3.exceptions.InvalidHeader))


def certainly_unsent(error: BaseException) -> bool:
    """Return whether no byte of the request can have reached the bank."""
    if isinstance(error, requests.exceptions.ConnectTimeout) or refused_by_requests(error):
        return True
    if not isinstance(error, requests.exceptions.ConnectionError):
        return False
    cause: Any = error.args[0] if error.args else None
    cause = getattr(cause, "reason", cause)
    if isinstance(cause, urllib3.exceptions.ProxyError):
        cause = cause.original_error
    if isinstance(cause, urllib3.exceptions.SSLError):
        return handshake_failure(error) is not None
    return isinstance(cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def handshake_failure(error: BaseException) -> str | None:
    """Return why a TLS handshake failed, such as ``CERTIFICATE_VERIFY_FAILED``; None if it did not."""
    reason = getattr(_tls_cause(error), "reason", None)
    if isinstance(reason, str) and (reason in HANDSHAKE_FAILURES or "HANDSHAKE" in reason or "CERTIFICATE" in reason):
        return reason
    return None


def _tls_cause(error: BaseException) -> Any:
    """Return the error of the ssl module; None if there is none."""
    if not isinstance(error, requests.exceptions.SSLError):
        return None
    cause: Any = error.args[0] if error.args else None
    cause = getattr(cause, "reason", cause)
    return cause.args[0] if isinstance(cause, urllib3.exceptions.SSLError) and cause.args else cause
