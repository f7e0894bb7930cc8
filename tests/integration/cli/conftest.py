# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.cli.target import Target, target
from intergiro_provider.hooks import intergiro as module
from intergiro_provider.sandbox import Sandbox
from tests.integration.cli.running import Connect
from tests.integration.session import services
from tests.timings import ALONE


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.Redis]:
    with services.redis() as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_timings", lambda: ALONE)


@pytest.fixture
def connect(sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a function that adds a connection with this extra and these fields to the environment."""

    def add(fields: dict[str, Any] | None = None, **extra: Any) -> Target:
        conn_id = f"bank_{uuid.uuid4().hex[:8]}"
        connection = {**json.loads(sandbox.connection()), **(fields or {}), "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return target(conn_id)

    return add
