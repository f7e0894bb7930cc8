# SPDX-License-Identifier: Apache-2.0
"""Many steps in many runs share one session, with each kind of instance storage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.dagster.conftest import ROOT, dagster
from tests.dagster.reading import ids_in

pytestmark = pytest.mark.integration

SHORT = {"process": True, "access_token_life": 3.0, "latency": 0.15, "transactions": 1000}


def check_counts(bank: Sandbox) -> None:
    counters = bank.counters()
    wrong = (counters.refresh_early, counters.refresh_reused, counters.login_refused, counters.fraud_blocks)
    assert (counters.logins, *wrong) == (1, 0, 0, 0, 0)
    assert counters.refreshes >= 1


@pytest.mark.parametrize("sandbox", [SHORT], indirect=True)
@pytest.mark.parametrize(
    ("runs", "steps"),
    [pytest.param(2, 2, id="2x2"), *(pytest.param(n, 8, id=f"{n}x8", marks=pytest.mark.exhaustive) for n in (1, 2))],
)
def test_steps_of_several_runs_log_in_once(
    sandbox: Sandbox, dagster_home: Path, tmp_path: Path, runs: int, steps: int
) -> None:
    started = [
        dagster(
            *("asset", "materialize", "--select", "*"),
            module="tests.dagster.projects.fleet",
            STEPS=str(steps),
            TARGET=str(tmp_path / f"run{number}"),
            BANK=sandbox.url,
            INTERGIRO_API_KEY=sandbox.api_key,
        )
        for number in range(runs)
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * runs, outputs[0][-3000:]

    check_counts(sandbox)
    bank = sorted(ids_in(sandbox.records()))
    for number in range(runs):
        for step in range(steps):
            assert sorted(ids_in(tmp_path / f"run{number}" / str(step))) == bank


@pytest.mark.parametrize("sandbox", [SHORT], indirect=True)
def test_processes_with_ephemeral_instances_log_in_once(sandbox: Sandbox, tmp_path: Path, state_home: Path) -> None:
    # Forked, so that Dagster is imported once.
    code = """
import multiprocessing, os
import dagster as dg
from tests.dagster.projects.fleet import defs

def work(number):
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([defs.assets[number]], resources=defs.resources, instance=instance).success

workers = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(5)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print([worker.exitcode for worker in workers])
"""
    environment = {"STEPS": "5", "BANK": sandbox.url, "INTERGIRO_API_KEY": sandbox.api_key, "TARGET": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.stdout.endswith("[0, 0, 0, 0, 0]\n"), done.stderr[-3000:]

    check_counts(sandbox)
    files = list((state_home / "dagster-intergiro").iterdir())
    assert {path.stat().st_mode & 0o077 for path in files if path.suffix == ".json"} == {0}
    bank = sorted(ids_in(sandbox.records()))
    assert [sorted(ids_in(tmp_path / str(number))) for number in range(5)] == [bank] * 5
