# SPDX-License-Identifier: Apache-2.0
"""The last requests, and how many are in progress."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from typing import Any

from starlette.types import Scope


class RequestLog:
    """Keep the last requests for ``/_sandbox/requests``, without their secrets.

    :param count: number of requests to keep.
    :param verbose: print one line per request on stderr: method, path without query, status, milliseconds.
    """

    def __init__(self, count: int, *, verbose: bool) -> None:
        self.in_progress = 0
        self.number = 0
        """Return the number of requests so far."""
        self._verbose = verbose
        self._requests: deque[tuple[int, Scope, int]] = deque(maxlen=count)

    def add(self, number: int, scope: Scope, status: int, seconds: float) -> None:
        """Add a completed request.

        :param status: of the response; 0: there was none.
        :param seconds: its duration.
        """
        self._requests.append((number, scope, status))
        if self._verbose:
            line = f"{scope['method']} {scope['path']} {status or 'no response'} {seconds * 1000:.0f} ms"
            print(line, file=sys.stderr, flush=True)

    def kept(self) -> list[dict[str, Any]]:
        """Return the kept requests as JSON values. A token is replaced by its hash."""
        return [
            {
                "number": number,
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode("latin-1"),
                "headers": [
                    _masked(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
                ],
                "body": scope["sandbox.body"].decode("utf-8", "replace"),
                "status": status,
                "fault": scope.get("sandbox.fault", ""),
                "connection": f"{scope['client'][0]}:{scope['client'][1]}",
            }
            for number, scope, status in self._requests
        ]

    def keep(self, count: int, *, forget: bool = False) -> None:
        """Keep this number of requests from now on.

        :param forget: drop those that are kept now.
        """
        self._requests = deque(() if forget else self._requests, maxlen=count)


def _masked(name: str, value: str) -> tuple[str, str]:
    if name != "authorization":
        return name, value
    scheme, _, token = value.partition(" ")
    return name, f"{scheme} #{hashlib.sha256(token.encode()).hexdigest()[:12]}"
