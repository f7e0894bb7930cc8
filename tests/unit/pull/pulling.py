# SPDX-License-Identifier: Apache-2.0
"""Pulls from memory into a directory, local or on an object store, for the tests of a pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, pages_of, record
from tests.unit.pull.stores import ObjectStore

FORMER = ListInMemory([record(n, former=True) for n in range(7)])
NEW = ListInMemory([record(n) for n in range(25)])

Store = tuple[AbstractFileSystem, str]


@pytest.fixture(params=["local", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a file system, and a directory on it that does not exist yet."""
    if request.param == "local":
        # No fsync, because no file outlives this process. On a busy disk, fsync would take minutes.
        monkeypatch.setattr("os.fsync", lambda handle: None)
        return LocalFileSystem(skip_instance_cache=True), str(tmp_path / "lake" / "transactions")
    return ObjectStore(), "/lake/transactions"


def pull(fs: Any, root: str, bank: Any, owner: str = "", **request: Any) -> Manifest:
    """Pull in small pages, and by default into small parts."""
    arguments = {"endpoint": "transactions", "query": {"limit": 5}, "part_bytes": 500, **request}
    return Pull(PullRequest(**arguments), pages_of(bank), Target(Directory(fs, root), owner)).run()


def lines(bank: ListInMemory) -> bytes:
    return b"".join(r + b"\n" for r in bank.records)
