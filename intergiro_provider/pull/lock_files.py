# SPDX-License-Identifier: Apache-2.0
"""Lock files: which pulls are running in a directory.

The lock file ``_pull-<pull id>.json`` exists from before a pull's first file until after its last change. A lock file
is *stale* if the pull has ended without removing it:

* an earlier attempt of the same task wrote it,
* a process of this machine wrote it, and has ended,
* it is more than a day old, or
* it is incomplete.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from intergiro_provider.pull import names

MAX_AGE = timedelta(hours=24)
"""An older lock file is stale, no matter which process wrote it."""


def content(owner: str, started: datetime) -> bytes:
    """Return the content of a lock file of this process.

    :param owner: names the task instance, the same in each attempt; empty if there is none.
    :param started: when this attempt began. The name of the pull has the time of the first attempt.
    """
    holder = {"owner": owner, "host": _this_host(), "pid": os.getpid(), "started": started.isoformat()}
    return json.dumps(holder).encode()


def describe(stored: bytes) -> str:
    """Return the task or process that wrote a lock file, for a message."""
    holder = _read(stored)
    host = str(holder.get("host", "?")).partition("/")[0]
    return str(holder.get("owner") or f"process {holder.get('pid', '?')} on {host}")


def is_stale(pull_id: str, stored: bytes, owner: str, began: datetime) -> bool:
    """Return whether the pull that wrote a lock file has ended.

    :param pull_id: the pull that wrote it.
    :param stored: its content.
    :param owner: the owner of the pull that checks the lock file, as in :func:`content`.
    :param began: when the attempt that checks the lock file began.
    """
    named = names.start_of(pull_id)
    if named is None:
        return False
    if _is_incomplete(stored):
        return True  # written under the directory's lock, or with one PUT: the pull was killed while it wrote it
    holder = _read(stored)
    started = _started(holder) or named
    if owner and holder.get("owner") == owner and started < began:
        return True  # Airflow runs one attempt of a task instance at a time
    pid = holder.get("pid")
    if holder.get("host") == _this_host() and isinstance(pid, int) and not _is_running(pid):
        return True
    return datetime.now(UTC) - started > MAX_AGE


def _started(holder: dict[str, object]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(holder.get("started"))).astimezone(UTC)
    except (ValueError, OverflowError):  # another program has written it
        return None


def _is_incomplete(stored: bytes) -> bool:
    try:
        json.loads(stored)
    except ValueError:
        return True
    return False


def _read(stored: bytes) -> dict[str, object]:
    if _is_incomplete(stored):
        return {}
    holder = json.loads(stored)
    return holder if isinstance(holder, dict) else {}  # not ours: only its age counts


def _this_host() -> str:
    """Return where a process id is valid: the boot of this kernel, and the container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        boot = processes = "-"
    return f"{socket.gethostname()}/{boot}/{processes}"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, under another user
        return True
    return True
