# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from intergiro_provider import exceptions as x
from intergiro_provider.api.errors import described, error_of, retry_after_of


def response(status: int, body: Any = None, headers: dict[str, str] | None = None) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    made.headers.update(headers or {})
    made.request = requests.Request("GET", "https://bank.example/v3/cards?account_ids=secret").prepare()
    return made


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, x.IntergiroValidationError),
        (401, x.IntergiroAuthError),
        (403, x.IntergiroForbidden),
        (404, x.IntergiroNotFound),
        (408, x.IntergiroRequestTimeout),
        (409, x.IntergiroClientError),
        (412, x.IntergiroConsentRequired),
        (418, x.IntergiroClientError),
        (422, x.IntergiroValidationError),
        (425, x.IntergiroRequestTimeout),
        (429, x.IntergiroRateLimited),
        (500, x.IntergiroServerError),
        (503, x.IntergiroServerError),
        (599, x.IntergiroServerError),
    ],
)
@pytest.mark.parametrize("body", [None, [], "text", {"errors": "x"}, {"errors": [1]}, b"<html>", b"\xff"])
def test_a_status_has_its_error_whatever_the_body_is(status: int, kind: type[Exception], body: Any) -> None:
    error = error_of(response(status, body))

    assert type(error) is kind
    assert "GET /v3/cards" in str(error)
    assert "secret" not in str(error)


def test_details_are_kept() -> None:
    body = {"errors": [{"code": "out_of_range", "field": "limit", "message": "at most 100"}]}
    error = error_of(response(400, body, {"X-Request-Id": "r-77", "Retry-After": "9"}))

    assert isinstance(error, x.IntergiroApiError)
    assert (error.status_code, error.errors, error.request_id, error.retry_after) == (400, body["errors"], "r-77", 9.0)
    assert "[field limit, code out_of_range, “at most 100”]" in str(error)


def test_a_consent_is_read() -> None:
    consent = {"id": "c-9", "status": "pending", "scope": ["make_payment", 5], "expires_at": "2026-01-01T00:00:00.000Z"}
    error = error_of(response(412, {"consent": consent}))

    assert isinstance(error, x.IntergiroConsentRequired)
    assert (error.consent_id, error.scope, error.expires_at) == ("c-9", ["make_payment"], "2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers) == seconds


def test_a_shown_request_has_no_query() -> None:
    assert described("GET", "https://bank.example/v3/cards?x=1#y") == "GET /v3/cards"


@pytest.mark.parametrize(
    "body",
    [
        {"code": "blocked", "message": "The key is blocked."},
        {"error": {"code": "blocked", "message": "The key is blocked."}},
        {"errors": [{"code": "blocked", "message": "The key is blocked."}]},
    ],
)
def test_code_and_message_are_shown_wherever_they_stand(body: Any) -> None:
    assert "[code blocked, “The key is blocked.”]" in str(error_of(response(403, body)))


def test_a_byte_order_mark_does_not_hide_the_reason() -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"errors": [{"code": "blocked"}]}).encode()
    assert "code blocked" in str(error_of(response(403, body, {"Content-Type": "application/json; charset=utf-8"})))
