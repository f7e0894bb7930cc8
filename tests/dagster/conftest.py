# SPDX-License-Identifier: Apache-2.0
"""Tests of dagster-intergiro. They run in `.venv-dagster`, which has no Airflow, and are passed over elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dagster import DagsterInstance

if find_spec("dagster") is None:
    collect_ignore_glob = ["*"]

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ.pop("DAGSTER_HOME", None)

ROOT = Path(__file__).parents[2]
SERVER = "postgresql+psycopg2://postgres@127.0.0.1:5432"


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the sessions of ephemeral instances away from the developer's home."""
    home = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


@pytest.fixture
def database() -> Iterator[str]:
    """URL of a PostgreSQL database of this test's own."""
    import sqlalchemy

    name = f"dagster_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(f"{SERVER}/postgres", isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"create database {name}"))
    except sqlalchemy.exc.OperationalError:
        if os.environ.get("CI"):
            raise
        pytest.skip("no PostgreSQL at 127.0.0.1:5432")
    yield f"{SERVER}/{name}"
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"drop database {name} with (force)"))


@pytest.fixture(params=["sqlite", "postgres"])
def dagster_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME of this test's own, with its storage in SQLite or in PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    storage = ""
    if request.param == "postgres":
        storage = f"storage:\n  postgres:\n    postgres_url: {request.getfixturevalue('database')}\n"
    (home / "dagster.yaml").write_text(f"telemetry:\n  enabled: false\n{storage}")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    from dagster import DagsterInstance

    with DagsterInstance.get():  # two that make the tables at once would collide
        pass
    return home


@pytest.fixture
def instance(dagster_home: Path) -> Iterator[DagsterInstance]:
    """The instance in `dagster_home`."""
    from dagster import DagsterInstance

    with DagsterInstance.get() as found:
        yield found


def dagster(*arguments: str, module: str, **environment: str) -> subprocess.Popen[str]:
    """Start a `dagster` command in a process of its own."""
    command = [sys.executable, "-m", "dagster", *arguments, "-m", module]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def has(program: str) -> bool:
    """Return whether a program is there; with CI=true it has to be."""
    return shutil.which(program) is not None or bool(os.environ.get("CI"))


def metadata(event: Any) -> dict[str, Any]:
    """Return an event's metadata as plain values."""
    return {name: getattr(value, "value", value) for name, value in event.materialization.metadata.items()}
