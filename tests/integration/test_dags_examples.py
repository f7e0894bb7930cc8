# SPDX-License-Identifier: Apache-2.0
"""Every example DAG runs, by `dag.test()` in a process of its own, on whatever Airflow this is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.pulls import written

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "dags_examples"

#: Runs the DAGs of a folder one after the other, and prints the state and the result of each of their tasks.
RUN = """
import json, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
runs = {}
for dag_id, dag in bag.dags.items():
    run = dag.test()
    runs[dag_id] = [
        (ti.task_id, ti.map_index, str(ti.state), ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index))
        for ti in run.get_task_instances()
    ]
print("RESULT " + json.dumps(runs, default=str))
"""


@dataclass
class Run:
    """What came of the examples."""

    bank: Sandbox
    target: Path
    runs: dict[str, list[tuple[str, int, str, Any]]]

    def result(self, dag_id: str, task_id: str) -> Any:
        """What a task returned."""
        [result] = [value for task, _, _, value in self.runs[dag_id] if task == task_id]
        return result


@pytest.fixture(scope="module")
def ran(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all examples once."""
    target = tmp_path_factory.mktemp("target")
    with Sandbox(transactions=1500, days=5) as bank:
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(EXAMPLES)],
            env={
                **os.environ,
                "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
                "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(),
                "INTERGIRO_EXAMPLE_TARGET": f"file://{target}",
            },
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, (done.stdout + done.stderr)[-6000:]
        runs = json.loads(lines[-1].removeprefix("RESULT "))
        states = {task[2].rpartition(".")[2].lower() for tasks in runs.values() for task in tasks}
        assert states == {"success"}, (done.stdout + done.stderr)[-6000:]
        yield Run(bank, target, runs)


def test_all_of_them_share_one_session(ran: Run) -> None:
    assert len(ran.runs) == 4
    counters = ran.bank.counters()
    assert (counters.logins, counters.refresh_early, counters.refresh_reused) == (1, 0, 0)


def test_nightly_pull(ran: Run) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = today - timedelta(days=1)
    bounds = {"created_from": day.isoformat(), "created_to": today.isoformat()}
    rows = {}
    for name in ("transactions", "accounts", "cards", "individuals"):
        manifest, records = written(ran.target / name / f"day={day:%Y-%m-%d}")
        expected = ran.bank.records(f"/v3/{name}", **(bounds if name == "transactions" else {}))
        assert sorted(records) == sorted(expected)
        assert manifest["rows"] > 0
        rows[name] = manifest["rows"]
    assert ran.result("intergiro_nightly", "announce") == rows


def test_call_endpoint(ran: Run) -> None:
    currencies = Counter(json.loads(r)["currency"] for r in ran.bank.records("/v3/accounts"))
    assert ran.result("intergiro_call_endpoint", "accounts") == currencies
    assert ran.result("intergiro_call_endpoint", "report").count(" in ") == len(currencies)


def test_hook_in_task(ran: Run) -> None:
    statuses = Counter(json.loads(r)["status"] for r in ran.bank.records("/v3/cards"))
    assert ran.result("intergiro_hook_in_task", "count_cards") == statuses
    newest = max(json.loads(r)["created_at"] for r in ran.bank.records("/v3/accounts"))
    assert ran.result("intergiro_hook_in_task", "newest_account") == newest


def test_http_operator(ran: Run) -> None:
    assert ran.result("intergiro_http_operator", "individuals") == len(ran.bank.records("/v3/individuals"))
