# SPDX-License-Identifier: Apache-2.0
"""Many hosts: processes that share only the Airflow API. Each is a task that calls the bank for a while."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.integration.outages.airflow3 import SECRET
from tests.integration.session.members import member

START = 120.0
"""Seconds until the last process has started on a busy machine."""


@dataclass
class Told:
    """The report of one task at its end.

    :param slow: the durations, in seconds, of calls that took longer than one second, without the first call.
    """

    calls: int
    first: float
    slow: list[float]
    errors: list[str]


def work(locks: str, url: str, secret: str, connection: str, begins: float, seconds: float, pipe: Any) -> Told:
    """Run the task of one host."""
    from intergiro_provider.hooks.intergiro import IntergiroHook
    from tests.integration.outages.airflow3 import as_task

    tempfile.tempdir = locks
    os.environ["AIRFLOW_CONN_HOSTS"] = connection
    told = Told(0, 0.0, [], [])
    with as_task(url, secret, tries=5, timeout=5.0):
        hook = IntergiroHook("hosts")
        pipe.send("ready")
        time.sleep(max(0.0, begins - time.time()))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                hook.run("accounts", {"limit": 1})
            except Exception as error:
                told.errors.append(f"{type(error).__name__}: {error}")
                time.sleep(1.0)
            took = time.monotonic() - began
            if not told.calls:
                told.first = took
            elif took > 1.0:
                told.slow.append(round(took, 1))
            told.calls += 1
            time.sleep(0.5)
    return told


def run_hosts(count: int, url: str, connection: str, folder: Path, seconds: float) -> list[Told]:
    """Run these hosts at the same time, and return the reports of their tasks."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        begins = time.time() + 8.0 + count
        hosts = []
        for number in range(count):
            locks = folder / f"host-{number}"
            locks.mkdir()
            hosts.append(stack.enter_context(member(work, str(locks), url, SECRET, connection, begins, seconds)))
        for host in hosts:
            assert host.hear(START) == "ready"
        told = [host.hear(START + seconds) for host in hosts]
    for one in told:
        if isinstance(one, BaseException):
            raise one
    return told


def summary(told: list[Told]) -> str:
    """Return the figures as text."""
    slow = sorted(seconds for one in told for seconds in one.slow)
    first = sorted(one.first for one in told)
    figures = {
        "hosts": len(told),
        "calls": sum(one.calls for one in told),
        "errors": sum(len(one.errors) for one in told),
        "first call, median and longest": [round(median(first), 1), round(first[-1], 1)],
        "calls that waited": len(slow),
        "wait, median and longest": [median(slow), slow[-1]] if slow else [],
    }
    return json.dumps(figures)
