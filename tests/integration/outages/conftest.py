# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from airflow import settings
from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from intergiro_provider.hooks import intergiro as hooks
from intergiro_provider.sandbox import Sandbox
from tests.integration.outages import airflow3
from tests.integration.outages.proxy import Proxy
from tests.integration.outages.table import ROWS, Row
from tests.integration.outages.world import SHORT, World
from tests.integration.session import services

AIRFLOW_3 = not version("apache-airflow").startswith("2.")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[services.Postgres]:
    """A PostgreSQL for the whole run; started when it is first needed."""
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def api_server(
    postgres_server: services.Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[airflow3.Server]:
    """An API server of Airflow 3; skipped where there is none."""
    if not AIRFLOW_3:
        pytest.skip("tasks of Airflow 2 reach the database themselves")
    with airflow3.serving(postgres_server, tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row of the table that the test is named after."""
    return ROWS[request.node.originalname.removeprefix("test_")]


@pytest.fixture
def line(sandbox: Sandbox) -> Iterator[Proxy]:
    """The network between the tasks and the bank."""
    with Proxy(sandbox.port) as proxy:
        yield proxy


@pytest.fixture
def world(
    sandbox: Sandbox,
    line: Proxy,
    airflow_db: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[World]:
    """Tasks that reach the metadata database themselves."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(hooks, "_timings", lambda: SHORT)
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
    engine = create_engine(f"sqlite:///{airflow_db}")
    yield World(sandbox, line, engine, caplog, monkeypatch)
    engine.dispose()


@pytest.fixture
def task_world(world: World, api_server: airflow3.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Tasks of Airflow 3, which reach their Variables through the API server."""
    timings = replace(SHORT, lease_write=0.8, lease_round=1.0, settle_lease=1.2, critical=5.0, takeover=10.5)
    monkeypatch.setattr(hooks, "_timings", lambda: timings)
    world.engine.dispose()
    world.engine = create_engine(api_server.dsn)
    with airflow3.as_task(api_server.url):
        yield world


@pytest.fixture(scope="session")
def metadata(postgres_server: services.Postgres) -> Iterator[tuple[str, Proxy]]:
    """The name of a metadata database in PostgreSQL, and the network to it."""
    with airflow3.metadata_database(postgres_server) as name, Proxy(postgres_server.port) as proxy:
        yield name, proxy


@pytest.fixture
def postgres_world(
    world: World,
    metadata: tuple[str, Proxy],
    postgres_server: services.Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Tasks that reach a metadata database in PostgreSQL themselves."""
    name, proxy = metadata
    ours = create_engine(airflow3.dsn(postgres_server, name, proxy.port), pool_pre_ping=True)
    monkeypatch.setattr(settings, "Session", scoped_session(sessionmaker(bind=ours)))
    world.engine.dispose()
    world.engine = create_engine(airflow3.dsn(postgres_server, name))
    yield world
    ours.dispose()
