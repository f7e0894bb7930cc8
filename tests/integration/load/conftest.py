# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import services
from tests.integration.load.world import Engine, hook_with, postgres_engine
from tests.integration.session.services import missing


@pytest.fixture(scope="session")
def server() -> Iterator[services.Postgres]:
    """Start a PostgreSQL server."""
    try:
        with services.postgres(services.Postgres) as running:
            yield running
    except services.Missing as reason:
        missing(str(reason))


@pytest.fixture(params=["psycopg2", "psycopg3", "duckdb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return each engine, with each driver."""
    if request.param == "duckdb":
        pytest.importorskip("duckdb")
        yield Engine("duckdb", {"database": str(tmp_path / "warehouse.duckdb")})
        return
    with hook_with(request.param):
        made = postgres_engine(request.getfixturevalue("server"), request.param)
        yield made
        made.ask(f"DROP SCHEMA {made.schema} CASCADE")
    os.environ.pop("AIRFLOW_CONN_LOAD_WAREHOUSE", None)
