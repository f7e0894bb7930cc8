# SPDX-License-Identifier: Apache-2.0
"""Read the result of a pull."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def ids_in(records: Path | Iterable[bytes]) -> list[str]:
    """Return the ids of records, from JSON lines or from the parts in the manifest of a directory."""
    if isinstance(records, Path):
        manifest = json.loads((records / "_manifest.json").read_text())
        parts = [records / part["path"] for part in manifest["parts"]]
        records = [line for part in parts for line in part.read_bytes().splitlines()]
    return [json.loads(record)["id"] for record in records]
