# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from collections.abc import Iterator
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
    """Start a PostgreSQL server for the whole test run, when it is first needed."""
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres_server: services.Postgres) -> str:
    """Return the name of the metadata database that is copied."""
    airflow3.migrate(postgres_server, name := "migrated")
    return name


@pytest.fixture(scope="session")
def api_server(
    postgres_server: services.Postgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[airflow3.Server]:
    """Start an API server of Airflow 3; skip the test on Airflow 2."""
    if not AIRFLOW_3:
        pytest.skip("tasks of Airflow 2 reach the database themselves")
    with airflow3.serving(postgres_server, migrated, tmp_path_factory.mktemp("api-server")) as server:
        yield server


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Return the row of the table for the test of this name."""
    return ROWS[request.node.originalname.removeprefix("test_")]


@pytest.fixture
def line(sandbox: Sandbox) -> Iterator[Proxy]:
    """Start the proxy between the tasks and the bank."""
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
    """Return a world whose tasks access the metadata database directly."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(hooks, "_timings", lambda: SHORT)
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
    engine = create_engine(f"sqlite:///{airflow_db}")
    yield World(sandbox, line, engine, caplog, monkeypatch)
    engine.dispose()


@pytest.fixture
def task_world(request: pytest.FixtureRequest, world: World, api_server: airflow3.Server) -> Iterator[World]:
    """Return a world of Airflow 3, whose tasks access Variables through the API server.

    Its parameter is the number of seconds after which the API client gives up a request.
    """
    world.engine.dispose()
    world.engine = create_engine(api_server.dsn)
    with airflow3.as_task(api_server.url, timeout=getattr(request, "param", 60.0)):
        yield world


@pytest.fixture(scope="session")
def metadata(postgres_server: services.Postgres, migrated: str) -> Iterator[tuple[str, Proxy]]:
    """Return the name of a metadata database in PostgreSQL, and the proxy to it."""
    with airflow3.metadata_database(postgres_server, migrated) as name, Proxy(postgres_server.port) as proxy:
        yield name, proxy


@pytest.fixture
def postgres_world(
    world: World,
    metadata: tuple[str, Proxy],
    postgres_server: services.Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Return a world whose tasks access a metadata database in PostgreSQL directly."""
    name, proxy = metadata
    ours = create_engine(airflow3.dsn(postgres_server, name, proxy.port), pool_pre_ping=True)
    monkeypatch.setattr(settings, "Session", scoped_session(sessionmaker(bind=ours)))
    world.engine.dispose()
    world.engine = create_engine(airflow3.dsn(postgres_server, name))
    yield world
    ours.dispose()
