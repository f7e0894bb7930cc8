# SPDX-License-Identifier: Apache-2.0
"""Shared code of the operators' tests: a bank, its connection, and checks of the written files."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.hooks import intergiro as hooks
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from tests.timings import ALONE

CONNECTION = "AIRFLOW_CONN_INTERGIRO_DEFAULT"


@pytest.fixture(scope="module")
def shared_bank(airflow_db: Path) -> Iterator[Sandbox]:
    """Start one bank for all tests of a module. They share one session, which only this process renews."""
    with (
        Sandbox(transactions=730, access_token_life=600.0, login_limit=50, login_window=60.0) as bank,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(hooks, "_timings", lambda: ALONE)
        patch.setenv(CONNECTION, bank.connection(max_logins_per_hour=50))
        yield bank


@pytest.fixture
def bank(shared_bank: Sandbox) -> Iterator[Sandbox]:
    """Return the shared bank with its original settings and without faults."""
    settings = shared_bank.settings()
    shared_bank.reset_counters()
    yield shared_bank
    shared_bank.clear_faults()
    changed = {name: value for name, value in settings.items() if shared_bank.settings()[name] != value}
    if changed:
        shared_bank.set(**changed)


Said = Callable[[], str]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Said:
    """Return a function that returns the log since its last call, with the standard output, to which Airflow 3 logs."""

    def read() -> str:
        captured = capfd.readouterr()
        text = captured.out + captured.err + caplog.text
        caplog.clear()
        return text

    return read


def transfer(path: Path, **arguments: Any) -> IntergiroToObjectStorageOperator:
    """Return the operator, with a target on the local disk."""
    return IntergiroToObjectStorageOperator(
        **{"task_id": "pull", "endpoint": "transactions", "path": f"file://{path}", **arguments}
    )


def pull(path: Path, **arguments: Any) -> dict[str, Any]:
    """Execute the operator and return its result."""
    return transfer(path, **arguments).execute({})


def written(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """Return the manifest in a directory and its records. Check sizes and hashes, and that there is no other file."""
    manifest = json.loads((path / "_manifest.json").read_bytes())
    records: list[bytes] = []
    for part in manifest["parts"]:
        stored = (path / part["path"]).read_bytes()
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (part["bytes"], part["sha256"])
        lines = (gzip.decompress(stored) if part["path"].endswith(".gz") else stored).splitlines()
        assert len(lines) == part["rows"]
        records += lines
    assert manifest["rows"] == len(records)
    assert manifest["bytes"] == sum(part["bytes"] for part in manifest["parts"])
    assert {p.name for p in path.glob("part-*")} == {part["path"] for part in manifest["parts"]}
    assert {p.name for p in path.iterdir()} == {"_manifest.json", *(part["path"] for part in manifest["parts"])}
    return manifest, records
