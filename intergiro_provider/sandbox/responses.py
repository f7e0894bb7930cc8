# SPDX-License-Identifier: Apache-2.0
"""Responses as the bank writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

from starlette.responses import Response

JSON = "application/json"


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, headers, media_type=JSON)


def error(status: int, code: str, message: str, field: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Return a response in the documented form of errors; without a field, it is left out."""
    described = {"code": code, "field": field, "message": message} if field else {"code": code, "message": message}
    return as_json({"errors": [described]}, status, headers)


def too_many(seconds: float, form: str, now: float) -> Response:
    """Return a 429 with Retry-After as `seconds`, as a `date`, or without it (`none`).

    :param now: epoch seconds of the bank's Date header.
    """
    headers = {}
    if form == "seconds":
        headers["retry-after"] = f"{seconds:g}"
    elif form == "date":
        headers["retry-after"] = formatdate(now + seconds, usegmt=True)
    return error(429, "too_many_requests", "Too many requests.", headers=headers)
