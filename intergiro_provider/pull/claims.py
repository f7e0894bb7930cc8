# SPDX-License-Identifier: Apache-2.0
"""Who is at work in a directory: the names of a pull's files, its claim, and when a claim is dead.

A claim is a small file ``_pull-<pull id>.json``, there from before a pull's first file until after its last
change. It is *dead* if it was made by an earlier try of the same task, by a process of this machine that is
gone, or more than a day ago, or if there is only half of it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

ABANDONED_AFTER = timedelta(hours=24)
"""A claim older than this is dead, if nothing told so before."""

_ID = r"\d{8}T\d{12}-[0-9a-f]{8}"
_ID_TIME = "%Y%m%dT%H%M%S%f"
_CLAIM = re.compile(rf"_pull-({_ID})\.json")
_PUBLISHED = re.compile(rf"part-\d+-({_ID})\.(?:jsonl|jsonl\.gz|jsonl\.zst|parquet)")
_UNPUBLISHED = re.compile(rf"_part-\d+-({_ID})\..+\.tmp|_manifest-({_ID})\.tmp|_checkpoint-({_ID})\.(?:json|tmp)")


def new_pull_id() -> str:
    """A name for a pull that no other pull has; by names, pulls sort by the time when they began."""
    return f"{datetime.now(UTC):{_ID_TIME}}-{uuid.uuid4().hex[:8]}"


def part_number(part: str) -> int:
    """The number in the name of a part."""
    return int(part.split("-")[1])


def part_name(number: int, pull_id: str, suffix: str) -> str:
    """The name of a published part."""
    return f"part-{number:05d}-{pull_id}{suffix}"


def staged_name(part: str) -> str:
    """The name of the same part before it is published."""
    return f"_{part}.tmp"


def manifest_on_its_way(pull_id: str) -> str:
    """The name of a manifest that is about to be renamed."""
    return f"_manifest-{pull_id}.tmp"


def checkpoint_name(pull_id: str) -> str:
    """The name of the note that says how far a pull is."""
    return f"_checkpoint-{pull_id}.json"


def checkpoint_on_its_way(pull_id: str) -> str:
    """The name of such a note that is about to be renamed."""
    return f"_checkpoint-{pull_id}.tmp"


def claim_name(pull_id: str) -> str:
    """The name of a pull's claim."""
    return f"_pull-{pull_id}.json"


def claimed_by(name: str) -> str | None:
    """The pull whose claim has this name; None if it is no claim."""
    match = _CLAIM.fullmatch(name)
    return match[1] if match else None


def pull_of(name: str) -> str | None:
    """The pull that a part or an unfinished file belongs to; None if it is not ours, and never to be touched."""
    match = _PUBLISHED.fullmatch(name) or _UNPUBLISHED.fullmatch(name)
    return next(filter(None, match.groups())) if match else None


def is_note(name: str) -> bool:
    """Whether a file says how far a pull is."""
    return name.startswith("_checkpoint-")


def is_unpublished(name: str) -> bool:
    """Whether a file of a pull is one that only the pull itself may look at."""
    return name.startswith("_")


def write_claim(owner: str) -> bytes:
    """The content of a claim of this process.

    :param owner: names the task instance, the same for each of its tries; empty if there is none.
    """
    return json.dumps({"owner": owner, "host": _this_host(), "pid": os.getpid()}).encode()


def describe_claim(content: bytes) -> str:
    """Who made a claim, for a message."""
    claim = _read(content)
    host = str(claim.get("host", "?")).partition("/")[0]
    return str(claim.get("owner") or f"process {claim.get('pid', '?')} on {host}")


def is_dead(pull_id: str, content: bytes, asking: str, owner: str) -> bool:
    """Whether the pull that made a claim has certainly, or after so long a time, ended.

    :param pull_id: whose claim it is. :param content: of the claim.
    :param asking: the pull that asks. :param owner: its owner, as in :func:`write_claim`.
    """
    try:
        began = datetime.strptime(pull_id.partition("-")[0], _ID_TIME).replace(tzinfo=UTC)
    except ValueError:  # digits, but no date: not ours
        return False
    if _is_torn(content):
        return True  # written under the directory's lock, or by one PUT: its pull was killed in the midst of that
    claim = _read(content)
    if owner and claim.get("owner") == owner and pull_id < asking:
        return True  # Airflow runs one try of a task instance at a time, so the later one is the living one
    pid = claim.get("pid")
    if claim.get("host") == _this_host() and isinstance(pid, int) and not _runs(pid):
        return True
    return datetime.now(UTC) - began > ABANDONED_AFTER


def _is_torn(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return True
    return False


def _read(content: bytes) -> dict[str, object]:
    if _is_torn(content):
        return {}
    claim = json.loads(content)
    return claim if isinstance(claim, dict) else {}  # not ours: then only its age counts


def _this_host() -> str:
    """Names what a process id is good for: this boot of this kernel, and this container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        boot = processes = "-"
    return f"{socket.gethostname()}/{boot}/{processes}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, under another user
        return True
    return True
