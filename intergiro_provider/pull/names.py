# SPDX-License-Identifier: Apache-2.0
"""The names of a pull's files. A name that begins with an underscore is not for readers: it is unpublished."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

_ID = r"\d{8}T\d{12}-[0-9a-f]{8}"
_ID_TIME = "%Y%m%dT%H%M%S%f"
_LOCK_FILE = re.compile(rf"_pull-({_ID})\.json")
_PUBLISHED = re.compile(rf"part-\d+-({_ID})\.(?:jsonl|jsonl\.gz|jsonl\.zst|parquet)")
_UNPUBLISHED = re.compile(rf"_part-\d+-({_ID})\..+\.tmp|_manifest-({_ID})\.tmp|_checkpoint-({_ID})\.(?:json|tmp)")


def new_pull_id(began: datetime | None = None) -> str:
    """Return a unique name for a pull. Names of pulls sort by the time at which the pulls began.

    :param began: when the pull began: the time of its oldest page. None: now.
    """
    return f"{began or datetime.now(UTC):{_ID_TIME}}-{uuid.uuid4().hex[:8]}"


def start_of(pull_id: str) -> datetime | None:
    """Return when a pull began; None if the name holds no valid date, and so is not ours."""
    try:
        return datetime.strptime(pull_id.partition("-")[0], _ID_TIME).replace(tzinfo=UTC)
    except ValueError:
        return None


def part_name(number: int, pull_id: str, suffix: str) -> str:
    """Return the name of a published part."""
    return f"part-{number:05d}-{pull_id}{suffix}"


def part_number(part: str) -> int:
    """Return the number in the name of a part."""
    return int(part.split("-")[1])


def staged_part(part: str) -> str:
    """Return the name of a part before it is published."""
    return f"_{part}.tmp"


def temporary_manifest(pull_id: str) -> str:
    """Return the name of the temporary file of a manifest."""
    return f"_manifest-{pull_id}.tmp"


def checkpoint_name(pull_id: str) -> str:
    """Return the name of a pull's checkpoint."""
    return f"_checkpoint-{pull_id}.json"


def temporary_checkpoint(pull_id: str) -> str:
    """Return the name of the temporary file of a checkpoint."""
    return f"_checkpoint-{pull_id}.tmp"


def lock_file(pull_id: str) -> str:
    """Return the name of a pull's lock file."""
    return f"_pull-{pull_id}.json"


def pull_of_lock_file(name: str) -> str | None:
    """Return the pull whose lock file has this name; None if it is no lock file."""
    match = _LOCK_FILE.fullmatch(name)
    return match[1] if match else None


def pull_of(name: str) -> str | None:
    """Return the pull of a part, a checkpoint or a temporary file; None for other files, which a pull never changes."""
    match = _PUBLISHED.fullmatch(name) or _UNPUBLISHED.fullmatch(name)
    return next(filter(None, match.groups())) if match else None


def is_checkpoint(name: str) -> bool:
    """Return whether a file of a pull is its checkpoint, or the temporary file of one."""
    return name.startswith("_checkpoint-")


def is_unpublished(name: str) -> bool:
    """Return whether a file of a pull is not for readers."""
    return name.startswith("_")
