# SPDX-License-Identifier: Apache-2.0
"""What the tests of the operators share: a bank, a connection that points at it, and a look at what was written."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

CONNECTION = "AIRFLOW_CONN_INTERGIRO_DEFAULT"


@pytest.fixture(scope="module")
def shared_bank(airflow_db: Path) -> Iterator[Sandbox]:
    """One bank for all tests of a module, so that they share one session; a login takes seconds."""
    with Sandbox(transactions=730, access_token_life=600.0, login_limit=50, login_window=60.0) as bank:
        before = os.environ.get(CONNECTION)
        os.environ[CONNECTION] = bank.connection(max_logins_per_hour=50)
        yield bank
        os.environ.pop(CONNECTION)
        if before is not None:
            os.environ[CONNECTION] = before


@pytest.fixture
def bank(shared_bank: Sandbox) -> Iterator[Sandbox]:
    """The shared bank, with the settings and without the faults of the test before."""
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
    """What was logged since the last call. Airflow 3's operators log to standard output, past the logging module."""

    def read() -> str:
        captured = capfd.readouterr()
        text = captured.out + captured.err + caplog.text
        caplog.clear()
        return text

    return read


def transfer(path: Path, **arguments: Any) -> IntergiroToObjectStorageOperator:
    """The operator under test, with a target on the local disk."""
    return IntergiroToObjectStorageOperator(
        **{"task_id": "pull", "endpoint": "transactions", "path": f"file://{path}", **arguments}
    )


def pull(path: Path, **arguments: Any) -> dict[str, Any]:
    """Run the operator by itself and return its result."""
    return transfer(path, **arguments).execute({})


def written(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The manifest in a directory and its parts' records; checks sizes and hashes, and that nothing else is there."""
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
