# SPDX-License-Identifier: Apache-2.0
"""The same DAGs on Airflow 2.11, where tasks read and write Variables directly in the metadata database.

The scheduler cannot run tasks in parallel on SQLite. So each DAG runs with `dag.test()`, in its own process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.bank import Bank
from scripts.leaks import database_cells, files, find
from scripts.processes import Group
from tests.system.conftest import ACCESS_TOKEN_LIFE, AIRFLOW, TRANSACTIONS
from tests.system.statsd import StatsdServer

if AIRFLOW >= (3, 0):
    pytest.skip("on Airflow 3 the DAGs run in a real scheduler instead", allow_module_level=True)

#: Runs one DAG and prints the results of its tasks. The arguments are the DAG's file, its id and the run's conf.
RUN_DAG = """
import json, sys
from airflow.models import DagBag
file, dag_id, conf = sys.argv[1:]
bag = DagBag(file, include_examples=False)
assert not bag.import_errors, bag.import_errors
run = bag.get_dag(dag_id).test(run_conf=json.loads(conf))
found = [
    [ti.task_id, ti.map_index, str(ti.state), ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index)]
    for ti in run.get_task_instances()
]
print("RESULT " + json.dumps([str(run.state), found], default=str))
"""


#: Prints the links of the last run of a DAG. As in the web server, they come from the serialized DAG.
READ_LINKS = """
import json, sys
from airflow.models import DagBag, DagRun
from airflow.serialization.serialized_objects import SerializedDAG
file, dag_id = sys.argv[1:]
dag = SerializedDAG.from_dict(SerializedDAG.to_dict(DagBag(file, include_examples=False).get_dag(dag_id)))
found = [
    [ti.task_id, ti.map_index, name, dag.get_task(ti.task_id).get_extra_links(ti, name)]
    for ti in DagRun.find(dag_id=dag_id)[-1].get_task_instances()
    for name in dag.get_task(ti.task_id).extra_links
]
print("RESULT " + json.dumps(found))
"""


@dataclass
class Airflow2:
    """An Airflow 2.11 without running components, and its bank."""

    home: Path
    env: dict[str, str]
    bank: Bank
    statsd: StatsdServer

    def run(self, dag_id: str, file: Path, **conf: Any) -> dict[tuple[str, int], Any]:
        """Run a DAG. Return the result of each task instance, by task id and map index."""
        done = subprocess.run(
            [sys.executable, "-c", RUN_DAG, str(file), dag_id, json.dumps(conf)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        (self.home / "logs" / f"{dag_id}.txt").write_text(done.stdout + done.stderr)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, (done.stdout + done.stderr)[-4000:]
        state, found = json.loads(lines[-1].removeprefix("RESULT "))
        assert state == "success", f"{found}\n{(done.stdout + done.stderr)[-6000:]}"
        return {(task, index): value for task, index, _, value in found}

    def links(self, dag_id: str, file: Path) -> dict[tuple[str, int, str], str]:
        """Return the links of the last run, by task id, map index and name."""
        done = subprocess.run(
            [sys.executable, "-c", READ_LINKS, str(file), dag_id],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, (done.stdout + done.stderr)[-4000:]
        found = json.loads(lines[-1].removeprefix("RESULT "))
        return {(task, index, name): url for task, index, name, url in found}


@pytest.fixture(scope="module")
def airflow2(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow2]:
    """Start a sandbox, and set a connection to it in the environment."""
    folder = tmp_path_factory.mktemp("sandbox")
    processes = Group(folder / "processes.json", folder)
    try:
        bank = Bank.start(
            processes,
            dict(os.environ),
            folder,
            *("--access-token-life", str(ACCESS_TOKEN_LIFE), "--transactions", str(TRANSACTIONS)),
        )
        connection = {
            "conn_type": "intergiro",
            "host": "http://127.0.0.1",
            "port": bank.port,
            "password": bank.settings()["api_keys"][0],
        }
        (airflow_db.parent / "logs").mkdir(exist_ok=True)
        with StatsdServer() as statsd:
            env = {**os.environ, **statsd.env, "AIRFLOW_CONN_INTERGIRO_DEFAULT": json.dumps(connection)}
            yield Airflow2(airflow_db.parent, env, bank, statsd)
    finally:
        processes.stop()


def dag_file(name: str) -> Path:
    """Return the path of one of the system tests' DAGs."""
    return Path(__file__).with_name("dags") / name


def test_every_door_leads_to_the_bank(airflow2: Airflow2, tmp_path: Path) -> None:
    result = airflow2.run("doors", dag_file("doors.py"), target=f"file://{tmp_path}")
    accounts = len(result["call_operator", -1])
    assert accounts > 1
    assert result["hook_in_task", -1] == {
        "accounts": accounts,
        "by_full_path": accounts,
        "transactions": TRANSACTIONS,
        "pooled_status": 200,
    }
    assert result["stock_http_operator", -1] == {"pages": TRANSACTIONS // 50, "records": TRANSACTIONS}
    assert result["transfer", -1] == json.loads((tmp_path / "_manifest.json").read_bytes())
    assert result["transfer", -1]["rows"] == TRANSACTIONS


def test_what_dag_authors_take_for_granted(airflow2: Airflow2, tmp_path: Path) -> None:
    file, portal = dag_file("everyday.py"), "https://www.intergiro.com/"
    result = airflow2.run("everyday", file, target=f"file://{tmp_path}", connection="intergiro_default")
    assert [len(result["call", index]["data"]) for index in (0, 1)] == [1, 2]
    assert result["counted", -1] == result["last", -1] == result["pull", -1]["rows"] > 2
    assert json.loads((tmp_path / "cards" / "_manifest.json").read_bytes()) == result["pull_mapped", 0]

    links = airflow2.links("everyday", file)
    assert re.fullmatch(
        r"https://console\.cloud\.google\.com/storage/browser/_details/lake/accounts/manual__[^/]+/_manifest\.json",
        links["pull", -1, "Manifest"],
    )
    assert links["pull_mapped", 0, "Manifest"] == links["broken", -1, "Manifest"] == ""
    assert links["pull", -1, "Intergiro portal"] == links["call", 1, "Intergiro portal"] == portal


def test_a_later_process_goes_on_with_the_session(airflow2: Airflow2) -> None:
    """The session outlives the process of the test before, and expires several times during this test."""
    before = airflow2.bank.counters()
    result = airflow2.run("shared_session", dag_file("shared_session.py"), seconds=3)
    assert min(result.values()) >= 1, "a renewal takes up to three of a task's seconds"
    after = airflow2.bank.counters()
    assert after["logins"] == 1
    assert after["refreshes"] > before["refreshes"]
    assert (after["refresh_early"], after["refresh_reused"], after["refresh_refused"]) == (0, 0, 0)


def test_renewals_are_counted_where_airflow_counts(airflow2: Airflow2) -> None:
    counters = airflow2.bank.counters()
    assert airflow2.statsd.count("intergiro.session.logins") == counters["logins"] == 1
    assert airflow2.statsd.count("intergiro.session.renewals") == counters["logins"] + counters["refreshes"]


def test_a_deferred_sensor_ends_when_the_record_is_there(airflow2: Airflow2) -> None:
    """`dag.test()` runs the trigger itself."""
    bank, batch = airflow2.bank, "batch-1"

    def book() -> None:
        while sum(batch in request["query"] for request in bank.control("GET", "requests")) < 3:
            if ended.wait(0.1):
                return
        bank.control("POST", "transactions", {"fields": {"correlation_id": batch}})

    ended = threading.Event()
    booking = threading.Thread(target=book)
    booking.start()
    try:
        airflow2.run("waiting", Path(__file__).with_name("dags") / "waiting.py", batch=batch)
    finally:
        ended.set()
        booking.join()
    assert "[DAG TEST] running trigger" in (airflow2.home / "logs" / "waiting.txt").read_text()


def test_connection_test_by_cli(airflow2: Airflow2) -> None:
    before = airflow2.bank.counters()
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "connections", "test", "intergiro_default"],
        env={**airflow2.env, "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert airflow2.bank.counters()["logins"] == before["logins"] + 1


def test_no_token_is_written_anywhere(airflow2: Airflow2) -> None:
    """After all other tests: no log and no row of the database contains a token or an API key in plain text."""
    secrets = airflow2.bank.tokens() | set(airflow2.bank.settings()["api_keys"])
    cells = list(database_cells(airflow2.home / "airflow.db"))
    places = list(files(airflow2.home))
    assert {"xcom.value", "variable.val"} <= {name for name, _ in cells}
    assert [name for name, _ in places if name.startswith("logs/")]
    assert find(secrets, places) == []
    assert find(secrets, cells) == []
