# SPDX-License-Identifier: Apache-2.0
"""What may be sent a second time, and when."""

from __future__ import annotations

import functools
import itertools
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
import tenacity
import urllib3.exceptions

from intergiro_provider.api.errors import retry_after_of

log = logging.getLogger("intergiro_provider.api")

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

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
"""Seconds after which a request is not tried again."""
LONGEST_WAIT = 60.0
"""Seconds; a bank that asks for more patience than this gets it from Airflow's own retries."""


def refused_by_requests(error: BaseException) -> bool:
    """Whether the request is one that cannot be made."""
    if not isinstance(error, NEVER_SENT):
        return False
    # requests says the same of a header in the bank's answer.
    return not (error.args and isinstance(error.args[0], urllib3.exceptions.InvalidHeader))


def certainly_unsent(error: BaseException) -> bool:
    """Whether not a byte of the request can have reached the bank."""
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
    """Why a TLS handshake failed, such as ``CERTIFICATE_VERIFY_FAILED``; None if it did not."""
    reason = getattr(_tls_cause(error), "reason", None)
    if isinstance(reason, str) and (reason in HANDSHAKE_FAILURES or "HANDSHAKE" in reason or "CERTIFICATE" in reason):
        return reason
    return None


def _tls_cause(error: BaseException) -> Any:
    """What the ssl module said; None if it is not about TLS."""
    if not isinstance(error, requests.exceptions.SSLError):
        return None
    cause: Any = error.args[0] if error.args else None
    cause = getattr(cause, "reason", cause)
    return cause.args[0] if isinstance(cause, urllib3.exceptions.SSLError) and cause.args else cause


def send_with_retries(send: Callable[[], requests.Response], *, what: str, repeatable: bool) -> requests.Response:
    """Send a request, and again where that is safe and may help.

    :param send: sends it once.
    :param what: the request, for the log.
    :param repeatable: whether it may be sent again although the bank may have carried it out.
    :return: the response, whatever its status; of the last try, where trying again did not help.
    """

    def again(state: tenacity.RetryCallState) -> bool:
        outcome = state.outcome
        if outcome is None:
            return False
        error = outcome.exception()
        if error is not None:
            if refused_by_requests(error):
                return False
            return certainly_unsent(error) or (repeatable and _is_passing(error))
        response: requests.Response = outcome.result()
        if not repeatable or response.status_code not in RETRIED_STATUSES:
            return False
        return (retry_after_of(response.headers) or 0.0) <= LONGEST_WAIT

    def wait(state: tenacity.RetryCallState) -> float:
        jitter = random.uniform(0, min(2.0 ** (state.attempt_number - 1), LONGEST_WAIT))  # noqa: S311
        outcome = state.outcome
        if outcome is None or outcome.failed:
            return jitter
        return (retry_after_of(outcome.result().headers) or 0.0) + jitter

    def before_sleep(state: tenacity.RetryCallState) -> None:
        outcome = state.outcome
        if outcome is None:
            return
        if outcome.failed:
            happened: object = type(outcome.exception()).__name__
        else:
            outcome.result().close()
            happened = outcome.result().status_code
        log.warning(
            "%s: %s; trying again in %.1f s (try %d of %d).",
            what,
            happened,
            state.upcoming_sleep,
            state.attempt_number + 1,
            ATTEMPTS,
        )

    def last(state: tenacity.RetryCallState) -> requests.Response:
        if state.outcome is None:
            raise AssertionError("tenacity gave up without an outcome")
        response: requests.Response = state.outcome.result()
        return response

    def over(state: tenacity.RetryCallState) -> bool:
        late = time.monotonic() - began + state.upcoming_sleep >= DEADLINE
        return late or state.attempt_number >= ATTEMPTS

    retrying = tenacity.Retrying(
        retry=again,
        wait=wait,
        stop=over,
        before_sleep=before_sleep,
        retry_error_callback=last,
        sleep=time.sleep,
    )
    began = time.monotonic()  # tenacity would not count the first try
    first = _try(send)
    if isinstance(first, requests.Response) and first.status_code not in RETRIED_STATUSES:
        return first  # nearly always, and tenacity would take as long as the rest of our own work for a page
    tries: Iterator[Callable[[], requests.Response]]
    tries = itertools.chain([functools.partial(_replay, first)], itertools.repeat(send))
    response: requests.Response = retrying(lambda: next(tries)())
    return response


def _try(send: Callable[[], requests.Response]) -> requests.Response | Exception:
    try:
        return send()
    except Exception as error:
        return error


def _replay(outcome: requests.Response | Exception) -> requests.Response:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _is_passing(error: BaseException) -> bool:
    """Whether another try may succeed: the network's faults, but not a wrong certificate or URL."""
    if isinstance(_tls_cause(error), ssl.SSLEOFError):
        return True  # a kept connection that the other side has cut, found out by writing to it
    return isinstance(
        error,
        (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ),
    ) and not isinstance(error, requests.exceptions.SSLError)
