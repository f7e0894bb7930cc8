# SPDX-License-Identifier: Apache-2.0
"""Many processes, one session: real Variables, real sockets, and the timings of production."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.session.members import InProcess, member
from tests.integration.session.services import wait_until
from tests.integration.session.worker import Work, work

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROCESSES = 4
EXPIRIES = 2
PATIENCE = 400.0


def progress(worker: InProcess) -> Work:
    """Return the progress of a worker, which it reports between two calls."""
    worker.say("tell")
    said = worker.hear(PATIENCE)
    assert isinstance(said, Work), said
    assert said.errors == ()
    return said


def let_all_call(fleet: list[InProcess]) -> None:
    """Wait until each process has completed a call that it started after this moment."""
    before = [progress(worker).calls for worker in fleet]
    for worker, calls in zip(fleet, before, strict=True):
        wait_until(lambda worker=worker, calls=calls: progress(worker).calls > calls, PATIENCE)


@pytest.mark.parametrize(("hosts", "lock"), [(1, ""), (PROCESSES, ""), (PROCESSES, "postgres"), (PROCESSES, "redis")])
def test_a_fleet_logs_in_once_a_session_and_refreshes_once_an_expiry(
    request: pytest.FixtureRequest, airflow_db: Path, sandbox: Sandbox, tmp_path: Path, hosts: int, lock: str
) -> None:
    """Hosts share no lock directory."""
    environment = {"AIRFLOW_CONN_INTERGIRO_DEFAULT": sandbox.connection(**({"lock_conn_id": "lock"} if lock else {}))}
    if lock:
        environment["AIRFLOW_CONN_LOCK"] = request.getfixturevalue(f"{lock}_server").connection_json()
    with ExitStack() as running:
        fleet = []
        for number in range(PROCESSES):
            locks = tmp_path / f"host-{number % hosts}"
            locks.mkdir(exist_ok=True)
            fleet.append(running.enter_context(member(work, environment, locks)))
        let_all_call(fleet)
        for _ in range(EXPIRIES):
            assert sandbox.expire_access_tokens()
            let_all_call(fleet)
        assert sandbox.end_sessions()
        let_all_call(fleet)
        for worker in fleet:
            worker.say("end")
        done = [worker.hear(PATIENCE) for worker in fleet]

    counters = sandbox.counters()
    assert [each.errors for each in done] == [()] * PROCESSES
    assert (counters.logins, counters.refreshes) == (2, EXPIRIES)
    assert (counters.refresh_early, counters.refresh_reused) == (0, 0)
    # One refused refresh shows the end of the session. No other process sends that token again.
    assert counters.refresh_refused == 1
    print(f"slowest calls after the first: {[round(each.slowest, 2) for each in done]}")
