# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.session import members, services


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[services.Postgres]:
    """Start a PostgreSQL server for the whole test run, when it is first needed."""
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.Redis]:
    """Start a Redis server for the whole test run, when it is first needed."""
    with services.redis() as server:
        yield server


@pytest.fixture(params=["postgres", "redis"])
def service(request: pytest.FixtureRequest) -> services.Postgres | services.Redis:
    """Return each service that provides a distributed lock."""
    server: services.Postgres | services.Redis = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture
def plan(
    sandbox: Sandbox, tmp_path: Path, service: services.Postgres | services.Redis, monkeypatch: pytest.MonkeyPatch
) -> members.Plan:
    """Return a plan for members under a distributed lock. In this process, its changes are undone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("AIRFLOW_CONN_LOCK", "")
    return members.plan_for(sandbox, tmp_path, service.connection_json())
