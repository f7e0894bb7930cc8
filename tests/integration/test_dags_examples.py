# SPDX-License-Identifier: Apache-2.0
"""Every example DAG, and that of the README, runs with `dag.test()`, on each supported version of Airflow.

One example waits for a person's approval. `tests/system/test_payments.py` runs it, with a browser.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
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

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "dags_examples"
README = ROOT / "README.md"
LAKE = "s3://aws_default@lake/"
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: Runs the DAGs of a folder one after the other, in one or several rounds, and prints the state and the result of each
#: of their tasks. A round has a time or None, environment variables, and the ids of its DAGs or None for all.
RUN = """
import inspect, json, os, sys
from datetime import datetime
try:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag

def run(at, environment, dag_ids):
    os.environ.update(environment)
    bag = DagBag(sys.argv[1])
    assert not bag.import_errors, bag.import_errors
    runs = {}
    for dag_id in dag_ids or bag.dags:
        dag = bag.dags[dag_id]
        [name] = {"logical_date", "execution_date"} & set(inspect.signature(dag.test).parameters)  # in Airflow 3 and 2
        ran = dag.test(**{name: at and datetime.fromisoformat(at)})
        if name == "logical_date":  # the first run has stored all DAGs; each other would do so again, in seconds
            DagBundlesManager.get_all_dag_bundles = lambda self: ()
        runs[dag_id] = [
            (ti.task_id, ti.map_index, str(ti.state), ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index))
            for ti in ran.get_task_instances()
        ]
    return runs

print("RESULT " + json.dumps([run(*each) for each in json.loads(sys.argv[2])], default=str))
"""


@dataclass
class Run:
    """The results of the examples."""

    bank: Sandbox
    target: Path
    at: datetime
    runs: dict[str, list[tuple[str, int, str, Any]]]
    warehouse: services.Postgres

    def result(self, dag_id: str, task_id: str) -> Any:
        """Return the result of a task."""
        [result] = [value for task, _, _, value in self.runs[dag_id] if task == task_id]
        return result


@pytest.fixture(scope="module")
def ran(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run all examples once, and the DAG of the README; two of them also by hand."""
    target, dags = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("dags")
    for example in EXAMPLES.glob("*.py"):
        if example.stem != "intergiro_pay_approved":
            shutil.copy(example, dags)
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert snippet.count(LAKE) == 1
    (dags / "readme.py").write_text(snippet.replace(LAKE, f"file://{target}/readme/"))
    at = datetime.now(UTC)
    rounds: list[Any] = [(at.isoformat(), {}, None)]
    if AIRFLOW >= (3, 0):
        by_hand = {"INTERGIRO_EXAMPLE_TARGET": f"file://{target}/by_hand"}
        rounds.append((None, by_hand, ["intergiro_daily", "intergiro_nightly"]))
    with ExitStack() as stack:
        bank = stack.enter_context(Sandbox(transactions=1500, days=5))
        try:
            warehouse = stack.enter_context(services.postgres(services.Postgres))
        except services.Missing as reason:
            missing(str(reason))
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(dags), json.dumps(rounds)],
            env={
                **os.environ,
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(),
                "AIRFLOW_CONN_WAREHOUSE": warehouse.connection_json(),
                "INTERGIRO_EXAMPLE_TARGET": f"file://{target}",
                "INTERGIRO_EXAMPLE_DATABASE": f"{target}/intergiro.duckdb",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, (done.stdout + done.stderr)[-6000:]
        runs = json.loads(lines[-1].removeprefix("RESULT "))
        states = {task[2].rpartition(".")[2].lower() for each in runs for tasks in each.values() for task in tasks}
        assert states == {"success"}, (done.stdout + done.stderr)[-6000:]
        yield Run(bank, target, at, runs[0], warehouse)


def test_all_of_them_share_one_session(ran: Run) -> None:
    assert len(ran.runs) == 9 + (AIRFLOW >= (3, 0)) + (AIRFLOW >= (3, 2)) + (AIRFLOW >= (3, 3))
    counters = ran.bank.counters()
    assert (counters.logins, counters.refresh_early, counters.refresh_reused) == (1, 0, 0)


def day_before(moment: datetime) -> tuple[datetime, datetime]:
    """Return the begin and the end of the last complete day at this time, in UTC."""
    end = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=1), end


def test_nightly_pull(ran: Run) -> None:
    # Before two o'clock, the last scheduled run is yesterday's.
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
def test_runs_by_hand_without_a_logical_date(ran: Run) -> None:
    """As with `airflow dags trigger`. Such a run has no interval, and its templates do not define one."""
    [directory] = (ran.target / "by_hand" / "daily").iterdir()
    day = datetime.fromisoformat(directory.name).replace(tzinfo=UTC)
    assert datetime.now(UTC) - timedelta(days=2, minutes=10) < day < datetime.now(UTC) - timedelta(days=1)
    _, records = written(directory)
    bounds = (day - timedelta(days=2)).isoformat(), (day + timedelta(days=1)).isoformat()
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", *bounds))
    assert list((ran.target / "by_hand" / "transactions").iterdir())


def test_the_readmes_dag_pulls_the_day_before(ran: Run) -> None:
    """Unchanged except for its target directory."""
    day, end = day_before(ran.at)
    [directory] = (ran.target / "readme" / "transactions").iterdir()
    manifest, records = written(directory)
    assert directory.name == f"{day:%Y-%m-%d}"
    assert manifest["rows"] > 0
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", day.isoformat(), end.isoformat()))


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
    """A run that was started by hand pulls the last day."""
    bounds = ran.result("intergiro_on_new_transactions", "interval")
    [directory] = (ran.target / "new_transactions").iterdir()
    manifest, records = written(directory)
    assert sorted(records) == sorted(ran.bank.records("/v3/transactions", **bounds))
    assert manifest["rows"] > 0
