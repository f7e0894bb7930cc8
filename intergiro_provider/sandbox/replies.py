# SPDX-License-Identifier: Apache-2.0
"""Requests and answers as the bank's own code sees them, free of the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json; charset=utf-8"


@dataclass
class Request:
    """One request; header names are lower case, `query` holds each parameter's values."""

    method: str
    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def bearer(self) -> str:
        """The access token sent along, or an empty string."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else ""


@dataclass
class Reply:
    """One answer; `rows` is how many records of a list it holds."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    rows: int = 0


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """An answer of JSON."""
    return Reply(status, json.dumps(value, ensure_ascii=False).encode(), headers=headers or {})


def error(status: int, code: str, message: str, field: str = "", headers: dict[str, str] | None = None) -> Reply:
    """An answer in the documented shape of errors; a field that is not known is left out."""
    described = {"code": code, "field": field, "message": message} if field else {"code": code, "message": message}
    return as_json({"errors": [described]}, status, headers)
