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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from scripts import services
from tests.integration.pulls import written
from tests.integration.session.services import missing

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: Runs the DAGs of a folder one after the other, and prints the state and the result of each of their tasks.
RUN = """
import inspect, json, sys
from datetime import datetime
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag

bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
at = datetime.fromisoformat(sys.argv[2])
runs = {}
for dag_id, dag in bag.dags.items():
    [name] = {"logical_date", "execution_date"} & set(inspect.signature(dag.test).parameters)  # Airflow 3's, and 2's
    run = dag.test(**{name: at})
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
    at: datetime
    runs: dict[str, list[tuple[str, int, str, Any]]]
    warehouse: services.Postgres

    def result(self, dag_id: str, task_id: str) -> Any:
        """What a task returned."""
        [result] = [value for task, _, _, value in self.runs[dag_id] if task == task_id]
        return result


def run(script: str, bank: Sandbox, target: Path, at: datetime, warehouse: str = "") -> dict[str, Any]:
    """Run examples by this script, as of a moment; the tasks of each, all of which have to succeed."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(EXAMPLES), at.isoformat()],
        env={
            **os.environ,
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(),
            "AIRFLOW_CONN_WAREHOUSE": warehouse,
            "INTERGIRO_EXAMPLE_TARGET": f"file://{target}",
            "INTERGIRO_EXAMPLE_DATABASE": f"{target}/intergiro.duckdb",
        },
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, (done.stdout + done.stderr)[-6000:]
    runs: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    states = {task[2].rpartition(".")[2].lower() for tasks in runs.values() for task in tasks}
    assert states == {"success"}, (done.stdout + done.stderr)[-6000:]
    return runs


@pytest.fixture(scope="module")
def ran(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run all examples once."""
    target = tmp_path_factory.mktemp("target")
    with Sandbox(transactions=1500, days=5) as bank:
        at = datetime.now(UTC)
        try:
            with services.postgres(services.Postgres) as server:
                yield Run(bank, target, at, run(RUN, bank, target, at, server.connection_json()), server)
        except services.Missing as reason:
            missing(str(reason))


def test_all_of_them_share_one_session(ran: Run) -> None:
    assert len(ran.runs) == 8 + (AIRFLOW >= (3, 0)) + (AIRFLOW >= (3, 2)) + (AIRFLOW >= (3, 3))
    counters = ran.bank.counters()
    assert (counters.logins, counters.refresh_early, counters.refresh_reused) == (1, 0, 0)


def day_before(moment: datetime) -> tuple[datetime, datetime]:
    """Beginning and end of the last day that had ended then, in UTC."""
    end = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=1), end


def test_nightly_pull(ran: Run) -> None:
    # Before two o'clock in the morning, the last run that was due is yesterday's.
    day, end = day_before(ran.at - timedelta(hours=2))
    bounds = {"created_from": day.isoformat(), "created_to": end.isoformat()}
    rows = {}
    for name in ("transactions", "accounts", "cards", "individuals"):
        manifest, records = written(ran.target / name / f"day={day:%Y-%m-%d}")
        expected = ran.bank.records(f"/v3/{name}", **(bounds if name == "transactions" else {}))
        assert sorted(records) == sorted(expected)
        assert manifest["rows"] > 0
        rows[name] = manifest["rows"]
    assert ran.result("intergiro_nightly", "announce") == rows


def test_daily(ran: Run) -> None:
    day, end = day_before(ran.at)
    manifest, records = written(ran.target / "daily" / f"{day:%Y-%m-%d}")
    start = day - timedelta(days=2)
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", start.isoformat(), end.isoformat()))
    assert manifest["rows"] > 0


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="in Airflow 2 each run has a logical date")
def test_runs_by_hand_without_a_logical_date(airflow_db: Path, tmp_path: Path) -> None:
    """What `airflow dags trigger` makes: such a run has no interval, and its templates not even the name of one."""
    script = RUN.replace("{name: at}", "{name: None}").replace(
        "bag.dags.items()", "[(name, bag.dags[name]) for name in ('intergiro_daily', 'intergiro_nightly')]"
    )
    with Sandbox(transactions=500, days=5) as bank:
        runs = run(script, bank, tmp_path, datetime.now(UTC))
        [directory] = (tmp_path / "daily").iterdir()
        day = datetime.fromisoformat(directory.name).replace(tzinfo=UTC)
        assert datetime.now(UTC) - timedelta(days=2, minutes=10) < day < datetime.now(UTC) - timedelta(days=1)
        _, records = written(directory)
        bounds = (day - timedelta(days=2)).isoformat(), (day + timedelta(days=1)).isoformat()
        assert sorted(records) == sorted(bank.records("/v3/transactions", *bounds))
    assert set(runs) == {"intergiro_daily", "intergiro_nightly"}


@pytest.mark.skipif(AIRFLOW < (3, 2), reason="partitions came with Airflow 3.2")
def test_partitions(ran: Run) -> None:
    day, end = day_before(ran.at)
    _, records = written(ran.target / "partitions" / f"{day:%Y-%m-%d}")
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", day.isoformat(), end.isoformat()))


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="the state of assets came with Airflow 3.3")
def test_increments(ran: Run) -> None:
    [directory] = (ran.target / "increments").iterdir()
    manifest, records = written(directory)
    assert manifest["created_from"] == "2024-01-01T00:00:00.000Z"
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", created_to=manifest["created_to"]))


def test_to_duckdb(ran: Run) -> None:
    import duckdb

    assert ran.result("intergiro_to_duckdb", "compare")["lines"] == 0  # from the second run on
    assert (ran.target / "reconciliation.html").exists()
    with duckdb.connect(str(ran.target / "intergiro.duckdb")) as database:
        rows = database.execute("SELECT id, amount FROM transactions").fetchall()
    assert set(rows) == {(each["id"], each["amount"]) for each in map(json.loads, ran.bank.records())}


def test_to_postgres(ran: Run) -> None:
    day, end = day_before(ran.at)
    expected = map(
        json.loads, ran.bank.records("/v3/transactions", (day - timedelta(days=3)).isoformat(), end.isoformat())
    )
    rows = ran.warehouse.ask("SELECT id, amount FROM transactions")
    ran.warehouse.ask("DROP TABLE transactions, transactions_history, _intergiro_loads CASCADE; SELECT 1")
    assert set(rows) == {(each["id"], each["amount"]) for each in expected}
    assert ran.result("intergiro_to_postgres", "load")["inserted"] == len(rows) > 0


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


def test_wait_for_event(ran: Run) -> None:
    assert ran.result("intergiro_wait_for_event", "go_on")


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="event-driven DAGs are Airflow 3's")
def test_on_new_transactions(ran: Run) -> None:
    """Run by hand: the last day."""
    bounds = ran.result("intergiro_on_new_transactions", "interval")
    [directory] = (ran.target / "new_transactions").iterdir()
    manifest, records = written(directory)
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", **bounds))
    assert manifest["rows"] > 0
