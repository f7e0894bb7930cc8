# SPDX-License-Identifier: Apache-2.0
"""Pulls over several tries and several runs in a real Airflow: checkpoints and watermarks."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from scripts.leaks import database_cells
from tests.system.conftest import AIRFLOW, TRANSACTIONS, System

if AIRFLOW < (3, 3):
    pytest.skip("needs the state stores of Airflow 3.3", allow_module_level=True)


def test_a_worker_that_is_killed(system: System) -> None:
    """kill -9 in the middle of a pull: the next try resumes at the last checkpoint."""
    bank, rest, target = system.bank, system.airflow.rest, system.data / "long_pull"
    bank.control("PATCH", "settings", {"latency": 0.25})
    before = bank.counters()["by_path"].get("GET /v3/transactions", 0)
    try:
        run = system.start("long_pull", target=f"file://{target}")
        [claim] = system.until(lambda: list(target.glob("_pull-*.json")), "a pull")
        system.until(lambda: list(target.glob("_checkpoint-*.json")), "a checkpoint")
        time.sleep(1.0)
        os.kill(json.loads(claim.read_bytes())["pid"], signal.SIGKILL)
    finally:
        bank.control("PATCH", "settings", {"latency": 0.0})
    system.finish("long_pull", run)
    [instance] = rest.task_instances("long_pull", run)
    assert instance["try_number"] == 2
    log = rest.task_log("long_pull", run, "pull", -1, 2)
    assert "An earlier attempt has pulled" in log
    manifest = json.loads((target / "_manifest.json").read_bytes())
    ids = [
        json.loads(line)["id"]
        for part in manifest["parts"]
        for line in (target / part["path"]).read_bytes().splitlines()
    ]
    assert len(ids) == len(set(ids)) == manifest["rows"] == TRANSACTIONS
    assert {path.name for path in target.iterdir()} == {"_manifest.json", *(p["path"] for p in manifest["parts"])}
    asked = bank.counters()["by_path"]["GET /v3/transactions"] - before
    pages = TRANSACTIONS // 10
    assert asked < 1.5 * pages, "less than the first try had done was done again"
    assert not [cell for cell in database_cells(system.airflow.home / "airflow.db") if "intergiro_pull" in str(cell)]


def test_increments(system: System) -> None:
    """Each run begins where the previous one ended. A cleared run pulls the same interval again."""
    now = datetime.now(UTC).replace(microsecond=0)
    moments = [now - timedelta(days=days) for days in (20, 12, 3)]
    rest = system.airflow.rest
    found = []
    for number, moment in enumerate(moments):
        target = system.data / "increments" / str(number)
        run = system.run("increments", target=f"file://{target}", to=moment.isoformat())
        manifest = rest.xcom("increments", run, "pull")
        found.append((manifest["created_from"], manifest["created_to"], manifest["rows"]))
    assert [start for start, _, _ in found] == ["2000-01-01T00:00:00.000Z", found[0][1], found[1][1]]
    for start, end, rows in found:
        assert rows == len(system.bank.records(start, end)) > 0
    events = rest.call("GET", "/assets/events", source_dag_id="increments")["asset_events"]
    assert [(event["extra"]["rows"], event["extra"]["watermark"]) for event in events] == [
        (rows, end) for _, end, rows in found
    ]
    again = rest.xcom("increments", system.run(
        "increments", target=f"file://{system.data}/increments/1", to=moments[1].isoformat()
    ), "pull")  # fmt: skip
    assert (again["created_from"], again["created_to"], again["rows"]) == found[1]
