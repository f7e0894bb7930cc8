# SPDX-License-Identifier: Apache-2.0
"""Shared code of the pullers. They run in their own environments, so it uses only the standard library.

A puller is a script that gets one argument, its :class:`Job` as JSON. Once prepared it says "ready" and waits for a
line on standard input; then it pulls, and its last line of output is JSON, what it came to.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True)
class Job:
    """What to pull, and where to.

    :param url: the bank's address, without a path.
    :param token: an access token that lives longer than any pull: peers do not renew.
    :param connection: an Airflow connection to the bank, as JSON.
    :param directory: for the result: JSON lines, or pages as they came.
    :param created_from: bounds of the interval, which holds all rows.
    :param windows: how many are pulled side by side at the most, by those that can.
    :param fixed: whether it is that many from the beginning.
    """

    url: str
    token: str
    connection: str
    directory: str
    created_from: str
    created_to: str
    windows: int = 1
    file_format: str = "jsonl"
    fixed: bool = False

    @property
    def endpoint(self) -> str:
        """The list's URL."""
        return f"{self.url}/v3/transactions"

    @property
    def query(self) -> dict[str, Any]:
        """The query of the first page, the same for all pullers."""
        return {
            "limit": 100, "sort_by": "created_at", "sort_type": "ASC",
            "created_from": self.created_from, "created_to": self.created_to,
        }  # fmt: skip

    @property
    def headers(self) -> dict[str, str]:
        """The bearer."""
        return {"Authorization": f"Bearer {self.token}"}

    def file(self, name: str = "rows.jsonl") -> Path:
        """A file for the result."""
        return Path(self.directory, name)


@dataclass(frozen=True)
class LoadJob:
    """What to load, and where to.

    :param path: the directory of a pull, or a file of CSV.
    :param schema: of the table ``transactions``.
    :param state: a directory of the loader's own, which its runs share.
    :param postgres: host, port, login, password and schema (the database's name) of a server; None: `database` it is.
    :param database: a DuckDB file.
    """

    path: str
    schema: str
    state: str
    postgres: dict[str, Any] | None = None
    database: str | None = None

    @property
    def table(self) -> str:
        """The table's name."""
        return f"{self.schema}.transactions"


AnyJob = TypeVar("AnyJob", Job, LoadJob)


def run(prepare: Callable[[AnyJob], Callable[[], object]], kind: type[AnyJob] = Job) -> None:  # type: ignore[assignment]
    """Let a puller or a loader get ready, then measure what it does.

    :param prepare: imports, starts and connects what the work needs; returns the work itself.
    :param kind: what it is told.
    """
    job = kind(**json.loads(sys.argv[1]))
    pull = prepare(job)
    print("ready", file=sys.__stdout__, flush=True)
    sys.stdin.readline()
    cpu, began = _cpu(), time.perf_counter()
    pull()
    wall, cpu = time.perf_counter() - began, _cpu() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak_mb()}), file=sys.__stdout__, flush=True)


def last_id(body: bytes) -> str | None:
    """The cursor for the next page of a body that is not decoded; None after the last page."""
    if not body.endswith(b'"has_more":true}'):
        return None
    start = body.rindex(b'{"id":"') + 7
    return body[start : body.index(b'"', start)].decode()


def peak_mb() -> float:
    """The most memory that this process has had, in MB of 10^6 bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _cpu() -> float:
    """Seconds of this process and of those that it has waited for."""
    others = os.times()
    return time.process_time() + others.children_user + others.children_system
