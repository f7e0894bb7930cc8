# SPDX-License-Identifier: Apache-2.0
"""The target of a pull, read without the provider and fsspec: a directory, or a prefix in a bucket."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MANIFEST = "_manifest.json"


class Place(Protocol):
    """A directory.

    :attr:`url`: the operator's `path`.
    """

    @property
    def url(self) -> str: ...

    def names(self) -> set[str]:
        """Return the names of all files."""

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        :raises KeyError: there is no such file.
        """


@dataclass(frozen=True)
class Folder:
    """A directory on the local disk."""

    path: Path

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()} if self.path.exists() else set()

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None


@dataclass(frozen=True)
class Prefix:
    """A prefix in a bucket.

    :param client: a client of boto3, connected directly to the server.
    """

    client: Any
    bucket: str
    prefix: str
    conn_id: str = "lake"

    @property
    def url(self) -> str:
        return f"s3://{self.conn_id}@{self.bucket}/{self.prefix}"

    def names(self) -> set[str]:
        start = f"{self.prefix}/" if self.prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
        return {found["Key"].removeprefix(start) for page in pages for found in page.get("Contents", [])}

    def read(self, name: str) -> bytes:
        key = f"{self.prefix}/{name}" if self.prefix else name
        try:
            content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            raise KeyError(name) from None
        return content

    def uploads(self) -> list[str]:
        """Return the keys of multipart uploads that are neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"] for upload in found]


def published(place: Place) -> tuple[dict[str, Any], list[bytes]]:
    """Return the manifest in a place, and every record, as a reader of the manifest finds them.

    :raises KeyError: a file is missing.
    """
    manifest = json.loads(place.read(MANIFEST))
    records: list[bytes] = []
    for part in manifest["parts"]:
        stored = place.read(part["path"])
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (part["bytes"], part["sha256"])
        lines = _plain(part["path"], stored).splitlines()
        assert len(lines) == part["rows"]
        records += lines
    assert manifest["rows"] == len(records)
    ids = [json.loads(record)["id"] for record in records]
    assert len(set(ids)) == len(ids)
    return manifest, records


def published_again(place: Place, looks: int = 20) -> tuple[dict[str, Any], list[bytes]]:
    """Return the same while pulls replace the result: if a part is missing, read the manifest again."""
    for _ in range(looks):
        try:
            return published(place)
        except KeyError as missing:
            if missing.args == (MANIFEST,):
                raise
    raise AssertionError("a part was missing each time")


def only_published(place: Place) -> tuple[dict[str, Any], list[bytes]]:
    """Return the same, and check that there is no other file: no earlier part, lock file or temporary file."""
    manifest, records = published(place)
    others = place.names() - {MANIFEST, *(part["path"] for part in manifest["parts"])}
    assert not others
    return manifest, records


def _plain(name: str, stored: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.decompress(stored)
    if name.endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(stored).read()
    return stored
