# SPDX-License-Identifier: Apache-2.0
"""Which requests may be repeated, and the error for other requests whose outcome is unknown."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import requests

from intergiro_provider.api.errors import described
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.exceptions import OutcomeUnknown, UnreadableResponse

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
KEYED = ("transactions/move", "transactions/pay")
"""The endpoints of the 3d API that document `request_id` as idempotency key. Elsewhere it is an unknown field."""


def idempotency_key(settings: ApiSettings, request: requests.PreparedRequest) -> str | None:
    """Return the key with which the bank recognizes a repetition of this request; None if it has none."""
    if settings.api != "3d" or request.method != "POST":
        return None
    if urlsplit(request.url or "").path not in [urlsplit(settings.url(endpoint)).path for endpoint in KEYED]:
        return None
    try:
        body = json.loads(request.body or b"")
    except (ValueError, TypeError, RecursionError):
        return None
    key = body.get("request_id") if isinstance(body, dict) else None
    return key if isinstance(key, str) and key else None


def is_repeatable(settings: ApiSettings, request: requests.PreparedRequest) -> bool:
    """Return whether this request may be sent again after the bank may have carried it out."""
    return request.method in IDEMPOTENT or idempotency_key(settings, request) is not None


def outcome_unknown(
    settings: ApiSettings, request: requests.PreparedRequest, happened: str, status: int | None = None
) -> OutcomeUnknown:
    """Return the error for a write that the bank may have carried out.

    :param happened: why the outcome is unknown.
    :param status: the HTTP status of the response; None without one.
    """
    return OutcomeUnknown(
        described(request.method, request.url),
        happened,
        _look_up(urlsplit(request.url or "").path),
        key=idempotency_key(settings, request),
        status_code=status,
    )


def raise_if_unknown(settings: ApiSettings, response: requests.Response) -> None:
    """Raise an error for a status after which the outcome of a write that must not be repeated is unknown.

    :raises OutcomeUnknown: for 408 and 5xx.
    """
    status = response.status_code
    if (status == 408 or status >= 500) and not is_repeatable(settings, response.request):
        raise outcome_unknown(settings, response.request, f"status {status}", status)


def raise_if_unreadable(settings: ApiSettings, response: requests.Response) -> None:
    """Raise an error for a successful response that is not what the API promises.

    :raises UnreadableResponse: it is HTML, or announced as JSON and is not, or empty where it must not be.
    :raises OutcomeUnknown: the same, if the request is a write that must not be repeated.
    """
    if not 200 <= response.status_code < 300 or is_readable(response):
        return
    what = f"status {response.status_code} with a body that is not JSON"
    if not is_repeatable(settings, response.request):
        raise outcome_unknown(settings, response.request, what, response.status_code)
    kind = response.headers.get("Content-Type", "no content type")
    where = described(response.request.method, response.request.url)
    raise UnreadableResponse(f"Intergiro responded to {where} with {what} ({kind}). Airflow can retry the task.")


def is_readable(response: requests.Response) -> bool:
    """Return whether the body is JSON, of another type than HTML, or empty where it may be."""
    kind = response.headers.get("Content-Type", "").lower()
    if not response.content:
        return response.status_code == 204 or response.request.method != "GET"
    if "html" in kind:  # an error page of a proxy
        return False
    if kind and "json" not in kind:
        return True
    try:
        json.loads(response.content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _look_up(path: str) -> str:
    endpoint = re.sub(r"^/v\d+/", "", path)
    if endpoint == "bulk_payments":
        return (
            "Look for the batch in the Intergiro customer portal, or list `transactions` with the `correlation_ids` of "
            "its items."
        )
    if endpoint.startswith("transactions/"):
        return (
            "List `transactions` of the account since this task started (`created_from`), and compare `request_id`, "
            "amount and reference."
        )
    return f"GET {path}, or the list that holds what this request creates, and look for its effect."
