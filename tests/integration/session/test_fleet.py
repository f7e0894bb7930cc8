# SPDX-License-Identifier: Apache-2.0
"""Many processes, one session: real Variables, real sockets, the times of production."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.session.services import Postgres, Redis

pytestmark = pytest.mark.integration

SESSION_LIFE = 7.0
ROOT = Path(__file__).parents[3]


def run_fleet(
    bank: Sandbox, tmp_path: Path, *, processes: int, hosts: int, seconds: float, lock: str | None = None
) -> list[dict[str, Any]]:
    """Start the processes, spread over hosts that share no lock directory, and gather what they print.

    :param lock: the Airflow connection of a distributed lock, as JSON; None: there is none.
    """
    extra = {"max_logins_per_hour": 20} | ({"lock_conn_id": "lock"} if lock else {})
    started = []
    for number in range(processes):
        locks = tmp_path / f"host-{number % hosts}"
        locks.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(**extra),
            "AIRFLOW_CONN_LOCK": lock or "",
            "TMPDIR": str(locks),
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.integration.session.worker", str(seconds)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = []
    for process in started:
        out, err = process.communicate(timeout=seconds + 60)
        assert process.returncode == 0, err[-2000:]
        results.append(json.loads(out.strip().splitlines()[-1]))
    return results


@pytest.fixture(autouse=True)
def no_session_yet(airflow_db: Path) -> None:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(
            delete(Variable).where(Variable.key.startswith("intergiro_session_")),
            execution_options={"synchronize_session": False},
        )


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.5}], indirect=True)
@pytest.mark.parametrize("hosts", [1, 4])
def test_a_fleet_logs_in_once_and_refreshes_once_per_expiry(sandbox: Sandbox, tmp_path: Path, hosts: int) -> None:
    results = run_fleet(sandbox, tmp_path, processes=4, hosts=hosts, seconds=14)

    counters = sandbox.counters()
    assert [r["errors"] for r in results] == [[]] * 4
    assert all(r["calls"] >= 5 for r in results)
    assert counters.logins == 1
    assert counters.refreshes >= 1
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.0, "session_life": SESSION_LIFE}], indirect=True)
def test_a_session_that_ends_costs_a_fleet_one_login(sandbox: Sandbox, tmp_path: Path) -> None:
    began = time.monotonic()
    results = run_fleet(sandbox, tmp_path, processes=4, hosts=2, seconds=20)
    lasted = time.monotonic() - began

    counters = sandbox.counters()
    assert [r["errors"] for r in results] == [[]] * 4
    assert 2 <= counters.logins <= 1 + lasted / SESSION_LIFE
    assert (counters.refresh_early, counters.refresh_reused) == (0, 0)
    # One refused refresh tells of the end of a session; nobody tries the dead token again.
    assert counters.refresh_refused == counters.logins - 1


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.5}], indirect=True)
def test_a_fleet_under_a_strict_lock_renews_without_waiting_times(
    sandbox: Sandbox, tmp_path: Path, service: Postgres | Redis
) -> None:
    lock = service.connection_json()
    results = run_fleet(sandbox, tmp_path, processes=4, hosts=4, seconds=14, lock=lock)

    counters = sandbox.counters()
    assert [r["errors"] for r in results] == [[]] * 4
    assert all(r["calls"] >= 5 for r in results)
    assert counters.logins == 1
    assert counters.refreshes >= 1
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)
    print(f"{counters.refreshes} renewals; slowest calls after the first: {[r['slowest_later'] for r in results]}")


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.0, "session_life": SESSION_LIFE}], indirect=True)
def test_a_session_that_ends_costs_a_fleet_under_a_strict_lock_one_login(
    sandbox: Sandbox, tmp_path: Path, service: Postgres | Redis
) -> None:
    began = time.monotonic()
    results = run_fleet(sandbox, tmp_path, processes=4, hosts=4, seconds=20, lock=service.connection_json())
    lasted = time.monotonic() - began

    counters = sandbox.counters()
    assert [r["errors"] for r in results] == [[]] * 4
    assert 2 <= counters.logins <= 1 + lasted / SESSION_LIFE
    assert (counters.refresh_early, counters.refresh_reused) == (0, 0)
    assert counters.refresh_refused == counters.logins - 1
