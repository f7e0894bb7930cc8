# SPDX-License-Identifier: Apache-2.0
"""A run that is stopped or killed during a pull."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from intergiro_provider.sandbox import Sandbox
from tests.dagster.conftest import dagster

pytestmark = pytest.mark.integration


ON_BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.exhaustive)]


def wait_for(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def start(bank: Sandbox, target: Path, **environment: str) -> subprocess.Popen[str]:
    return dagster(
        *("asset", "materialize", "--select", "*"),
        module="tests.dagster.projects.fleet",
        STEPS="1",
        TARGET=str(target),
        BANK=bank.url,
        INTERGIRO_API_KEY=bank.api_key,
        **environment,
    )


@pytest.mark.parametrize("sandbox", [{"process": True}], indirect=True)
@pytest.mark.parametrize("dagster_home", ON_BOTH, indirect=True)
@pytest.mark.parametrize(
    "fault", [{"kind": "latency", "seconds": 0.3}, {"kind": "hang", "skip": 3}], ids=["slow", "hangs"]
)
def test_a_run_that_is_told_to_end_does_so_within_5_seconds(
    sandbox: Sandbox, dagster_home: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    sandbox.fault(path="/v3/transactions", **fault)
    run = start(sandbox, tmp_path)
    wait_for(lambda: sandbox.counters().by_path["GET /v3/transactions"] > 4 or fault["kind"] == "hang")
    wait_for(lambda: list(tmp_path.rglob("_part-*")))
    parent = psutil.Process(run.pid)
    # Its children are helpers of multiprocessing (fork server, resource tracker). The step is a child of these.
    family = [parent, *(set(parent.children(recursive=True)) - set(parent.children()))]
    run.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, alive = psutil.wait_procs(family, timeout=120)
    took = time.monotonic() - began

    assert not alive
    output = run.communicate()[0]
    assert took < 5, output[-2000:]
    with DagsterInstance.get() as instance:
        assert [record.status for record in instance.get_runs()] == [DagsterRunStatus.FAILURE]
    assert not list(tmp_path.rglob("_manifest.json"))
    assert not [path.name for path in tmp_path.rglob("part-*")]


@pytest.mark.parametrize("dagster_home", ON_BOTH, indirect=True)
@pytest.mark.parametrize("sandbox", [{"process": True, "access_token_life": 3.0}], indirect=True)
def test_after_the_holder_of_the_lock_was_killed_the_next_run_logs_in_once_more_at_most(
    sandbox: Sandbox, dagster_home: Path, tmp_path: Path
) -> None:
    sandbox.fault("hang", "/v3/auth/login", seconds=300, times=1, handled=True)
    killed = start(sandbox, tmp_path / "killed")
    wait_for(lambda: sandbox.counters().by_path["POST /v3/auth/login"])
    os.killpg(killed.pid, signal.SIGKILL)
    for child in psutil.Process(killed.pid).children(recursive=True):
        child.kill()
    killed.communicate()

    output = (next_run := start(sandbox, tmp_path / "next")).communicate()[0]
    assert next_run.returncode == 0, output[-3000:]
    counters = sandbox.counters()
    assert (counters.logins, counters.refresh_reused, counters.refresh_early) == (2, 0, 0)
