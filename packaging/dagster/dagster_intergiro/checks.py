# SPDX-License-Identifier: Apache-2.0
"""Asset checks that read the files of a result: hashes and row counts, unique ids, times."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from dagster import AssetCheckResult, AssetCheckSeverity, AssetCheckSpec, AssetKey, MetadataValue

from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest, Part

CHECKS = {
    "manifest_hashes": "Every file has the bytes, the SHA-256 and the rows that the manifest names.",
    "unique_ids": "No id occurs twice in a partition.",
    "times_within_partition": "Every `created_at` lies within the interval that was pulled.",
}
SHOWN = 10
"""Problems that a check names, at most."""


def check_specs(key: AssetKey) -> list[AssetCheckSpec]:
    """Return the checks of an asset."""
    return [AssetCheckSpec(name, asset=key, description=text) for name, text in CHECKS.items()]


class Problems:
    """The findings of the checks in the results of a run."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {name: [] for name in CHECKS}
        self._rows = 0

    def look_at(self, directory: Directory, manifest: Manifest, partition: str | None) -> None:
        """Read a result and check it. The findings name files and ids, and no other data."""
        where = f"{partition}: " if partition is not None else ""
        bounds = None
        if manifest.created_from is not None and manifest.created_to is not None:
            bounds = datetime.fromisoformat(manifest.created_from), datetime.fromisoformat(manifest.created_to)
        seen: set[Any] = set()
        for part in manifest.parts:
            rows = 0
            for identity, created_at in self._records(directory, part, where):
                rows += 1
                if identity is not None and identity in seen:
                    self._found["unique_ids"].append(f"{where}{identity} in {part.path}")
                seen.add(identity)
                if bounds is not None and created_at is not None and not bounds[0] <= created_at < bounds[1]:
                    self._found["times_within_partition"].append(f"{where}{identity} in {part.path}")
            self._rows += rows
            if rows != part.rows:
                self._found["manifest_hashes"].append(f"{where}{part.path} has {rows} rows, not {part.rows}")

    def _records(self, directory: Directory, part: Part, where: str) -> Iterator[tuple[Any, datetime | None]]:
        with directory.open(part.path) as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()
        if (len(content), digest) != (part.bytes, part.sha256):
            self._found["manifest_hashes"].append(f"{where}{part.path} has other bytes than the manifest names")
            return
        yield from _heads(part.path, content)

    def results(self, key: AssetKey) -> Sequence[AssetCheckResult]:
        """Return the check results of an asset."""
        return [
            AssetCheckResult(
                asset_key=key,
                check_name=name,
                passed=not found,
                severity=AssetCheckSeverity.ERROR,
                description=CHECKS[name] if not found else f"{len(found)} problems.",
                metadata={
                    "rows": self._rows,
                    **(
                        {"problems": MetadataValue.md("\n".join(f"- {each}" for each in found[:SHOWN]))}
                        if found
                        else {}
                    ),
                },
            )
            for name, found in self._found.items()
        ]


class _Head(msgspec.Struct, gc=False):
    id: Any = None
    created_at: Any = None


def _heads(name: str, content: bytes) -> Iterator[tuple[Any, datetime | None]]:
    """Yield id and time of each record of a part."""
    if name.endswith(".parquet"):
        import pyarrow.parquet  # type: ignore[import-untyped]

        table = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        wanted = [column for column in ("id", "created_at") if column in table.schema_arrow.names]
        for batch in table.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                yield row.get("id"), _time(row.get("created_at"))
        return
    decode = msgspec.json.Decoder(_Head).decode
    for line in _lines(name, content):
        try:
            head = decode(line)
        except msgspec.DecodeError:  # a record that is no object
            head = _Head()
        yield head.id, _time(head.created_at)


def _lines(name: str, content: bytes) -> Iterator[bytes]:
    if name.endswith(".gz"):
        import gzip

        content = gzip.decompress(content)
    elif name.endswith(".zst"):
        import zstandard

        content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    return iter(content.splitlines())


def _time(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo is not None else None
