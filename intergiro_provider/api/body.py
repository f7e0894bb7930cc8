# SPDX-License-Identifier: Apache-2.0
"""The body of a request: what it is made of, and how it can be sent once more."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests

from intergiro_provider.exceptions import IntergiroValueError

IN_MEMORY = 1024 * 1024
"""Bytes of a body that can be read only once which are kept in memory; more goes to a temporary file."""


def body_arguments(method: str, data: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Where `data` goes: into the query of a GET, else into the body."""
    arguments = dict(given)
    if method in ("GET", "HEAD"):
        if data:
            arguments["params"] = {**data, **(arguments.get("params") or {})} if isinstance(data, dict) else data
    elif isinstance(data, (dict, list)):
        if data and arguments.get("json") is not None:
            raise IntergiroValueError("`data` and `json` are both given: both would be the body. Give one of them.")
        if arguments.get("files"):
            return {**arguments, "data": data}
        # The stock HttpOperator passes an empty dict where its user gave nothing.
        if data or (method in ("POST", "PUT", "PATCH") and "json" not in arguments):
            arguments.setdefault("json", data)
    elif data is not None:
        arguments["data"] = repeatable_body(data)
    return arguments


def rewinder(request: requests.Request) -> Callable[[], None]:
    """What puts the files of a request back to where they are now, before it is sent again."""
    files = request.files.values() if isinstance(request.files, dict) else [f[1] for f in request.files or ()]
    bodies = [request.data, *(f[1] if isinstance(f, tuple) else f for f in files)]
    starts = [(body, body.tell()) for body in bodies if hasattr(body, "seek") and hasattr(body, "tell")]

    def rewind() -> None:
        for body, start in starts:
            body.seek(start)

    return rewind


def has_idempotency_key(body: Any) -> bool:
    """Whether the bank carries this request out once, however often it is sent (3d API)."""
    return isinstance(body, dict) and isinstance(body.get("request_id"), str) and bool(body["request_id"])


def repeatable_body(body: Any) -> Any:
    """The body, or a copy of it where it can be read only once, so that it can be sent once more."""
    if body is None or not (hasattr(body, "read") or isinstance(body, Iterator)):
        return body
    if hasattr(body, "seek") and (not hasattr(body, "seekable") or body.seekable()):
        return body
    kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - lives as long as the request
    blocks = iter(lambda: body.read(64 * 1024), None) if hasattr(body, "read") else body
    for block in blocks:
        if not block:
            break
        kept.write(block.encode() if isinstance(block, str) else block)
    kept.seek(0)
    return kept
