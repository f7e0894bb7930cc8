# SPDX-License-Identifier: Apache-2.0
"""The exception for an error status or a missing response, with its remedy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from intergiro_provider.api.masking import errors_in, shown
from intergiro_provider.api.settings import origin_of
from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroApiError,
    IntergiroAuthError,
    IntergiroClientError,
    IntergiroConsentRequired,
    IntergiroError,
    IntergiroForbidden,
    IntergiroNotFound,
    IntergiroRateLimited,
    IntergiroRequestTimeout,
    IntergiroServerError,
    IntergiroValidationError,
    looks_like_an_id,
    shown_id,
)

KINDS: dict[int, type[IntergiroApiError]] = {
    400: IntergiroValidationError,
    403: IntergiroForbidden,
    404: IntergiroNotFound,
    408: IntergiroRequestTimeout,
    422: IntergiroValidationError,
    425: IntergiroRequestTimeout,
    429: IntergiroRateLimited,
}


def error_of(response: requests.Response, key: str | None = None) -> IntergiroError:
    """Return the exception for a response with a status of 400 or above.

    :param key: the request's idempotency key; None if it has none.
    """
    status = response.status_code
    where = described(response.request.method, response.request.url)
    body = _json_object(response)
    request_id = response.headers.get("X-Request-Id") or response.headers.get("X-Correlation-Id")
    if status == 401:
        return IntergiroAuthError(f"Intergiro returned 401 for {where} although the session had just been renewed.")
    if status == 412:
        consent = body.get("consent")
        consent = consent if isinstance(consent, dict) else {}
        scope = consent.get("scope")
        return IntergiroConsentRequired(
            _text(consent.get("id")),
            [s for s in scope if isinstance(s, str)] if isinstance(scope, list) else [],
            _text(consent.get("expires_at")),
            request_id=request_id,
            where=where,
        )
    kind = KINDS.get(status, IntergiroServerError if status >= 500 else IntergiroClientError)
    errors = errors_in(body)
    said = shown(errors, response.request)
    remedy = _remedy_of_conflict(key, body) if status == 409 and key else ""
    return kind(status, errors, request_id, retry_after_of(response.headers), where=where, said=said, remedy=remedy)


def _remedy_of_conflict(key: str, body: Mapping[str, Any]) -> str:
    """Return what to do after a 409 to a request with an idempotency key. The refused request itself paid nothing."""
    named = [place.get(name) for place in (body, *errors_in(body)) for name in ("transaction_id", "payment_id")]
    named += [place.get("id") for name in ("transaction", "payment") if isinstance(place := body.get(name), Mapping)]
    payment_id = next((value for value in named if isinstance(value, str) and looks_like_an_id(value)), None)
    known = f" for the transaction {payment_id}" if payment_id else ""
    return (
        f"The idempotency key {shown_id(key)} was probably used before{known}. Nothing was paid now. Look for that "
        "payment in the Intergiro customer portal, or in `transactions` by its `request_id`. If it is the payment that "
        "you want, mark this task as success. To make another payment, send another `request_id`."
    )


def unreachable(request: requests.PreparedRequest, error: Exception, *, in_doubt: bool) -> BankUnavailable:
    """Return the error for a request that got no response.

    The cause must not be chained: its text holds the URL with its query.

    :param in_doubt: whether the bank may have carried the request out.
    """
    if in_doubt:
        advice = "The bank may have carried it out: repeat it with the same idempotency key only."
    elif isinstance(error, requests.exceptions.SSLError):
        advice = "The certificate or the TLS settings do not fit: see `verify` in the connection's extra."
    elif isinstance(error, requests.exceptions.Timeout):
        advice = "See `connect_timeout` and `read_timeout` in the connection's extra, or try again later."
    elif isinstance(error, requests.exceptions.ConnectionError):
        advice = "Check the host, the network and `proxies`, or try again later."
    else:
        advice = "The request or the response is not valid HTTP."
    where, origin = described(request.method, request.url), origin_of(request.url or "")
    unavailable = BankUnavailable(f"No response from {origin} to {where} ({type(error).__name__}). {advice}")
    unavailable.may_have_arrived = in_doubt
    return unavailable


def described(method: str | None, url: str | None) -> str:
    """Return method and path of a request, without the query, which may contain account data."""
    parts = urlsplit(url or "")
    return f"{method} {parts.path}"


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, in seconds or as an HTTP date; None without a usable one."""
    value = (headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    # The date is by the bank's clock, which the Date header shows.
    now = http_date(headers.get("Date") or "")
    return max(0.0, until - (time.time() if now is None else now))


def http_date(value: str) -> float | None:
    """Return the epoch seconds of an HTTP date; None if it is not one."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _json_object(response: requests.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)  # unlike response.json(), it reads a body with a byte order mark
    except (ValueError, RecursionError, requests.RequestException):
        return {}
    return body if isinstance(body, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
