# SPDX-License-Identifier: Apache-2.0
"""Tests of dagster-intergiro. They run in `.venv-dagster`, which has no Airflow, and are skipped elsewhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts import services
from tests.integration.session.services import Postgres, missing

if TYPE_CHECKING:
    from dagster import DagsterInstance

if find_spec("dagster") is None:
    collect_ignore_glob = ["*"]

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ.pop("DAGSTER_HOME", None)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store the sessions of ephemeral instances in a temporary directory."""
    home = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL server. Without its programs, skip the test; with CI=true, fail it."""
    try:
        with services.postgres(Postgres, max_connections=200) as server:
            yield server
    except services.Missing as reason:
        missing(str(reason))


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a new PostgreSQL database."""
    name = f"dagster_{uuid.uuid4().hex[:12]}"
    _run(postgres, f"create database {name}")
    yield f"postgresql+psycopg2://postgres:{postgres.password}@127.0.0.1:{postgres.port}/{name}"
    _run(postgres, f"drop database {name} with (force)")


def _run(server: Postgres, statement: str) -> None:
    with contextlib.closing(server.connect()) as connection:
        connection.cursor().execute(statement)


@pytest.fixture(params=["sqlite", "postgres"])
def dagster_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new DAGSTER_HOME, with storage in SQLite or in PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    storage = ""
    if request.param == "postgres":
        storage = f"storage:\n  postgres:\n    postgres_url: {request.getfixturevalue('database')}\n"
    (home / "dagster.yaml").write_text(f"telemetry:\n  enabled: false\n{storage}")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    from dagster import DagsterInstance

    with DagsterInstance.get():  # two processes that create the tables at the same time would collide
        pass
    return home


@pytest.fixture
def instance(dagster_home: Path) -> Iterator[DagsterInstance]:
    """Return the instance in `dagster_home`."""
    from dagster import DagsterInstance

    with DagsterInstance.get() as found:
        yield found


def dagster(*arguments: str, module: str, **environment: str) -> subprocess.Popen[str]:
    """Start a `dagster` command in a new process."""
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


def metadata(event: Any) -> dict[str, Any]:
    """Return an event's metadata as plain values."""
    return {name: getattr(value, "value", value) for name, value in event.materialization.metadata.items()}
