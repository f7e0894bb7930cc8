# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tenacity

from intergiro_provider.hooks import intergiro as module
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from tests.integration.hooks.connections import Connect
from tests.timings import ALONE


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_timings", lambda: ALONE)
    # The wait between attempts. A Retry-After of the bank still counts.
    soon = partial(tenacity.wait_random_exponential, multiplier=0.05)
    monkeypatch.setattr(tenacity, "wait_random_exponential", soon)


@pytest.fixture
def connect(sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return a function that creates a hook with a new connection, with this extra and these fields."""

    def make(method: str = "GET", fields: dict[str, Any] | None = None, **extra: Any) -> IntergiroHook:
        conn_id = f"bank_{uuid.uuid4().hex[:8]}"
        connection = {**json.loads(sandbox.connection()), **(fields or {}), "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return IntergiroHook(conn_id, method=method)

    return make
