# SPDX-License-Identifier: Apache-2.0
"""A real Airflow 3: a deferred sensor, a DAG that new records start, and a triggerer that is killed."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from intergiro_provider.sandbox import Sandbox
from scripts.airflow_stack import COMPONENTS, AirflowStack
from scripts.bank import Bank
from scripts.leaks import database_cells, files, find
from tests.system.conftest import AIRFLOW, NAME, System

if AIRFLOW < (3, 0):
    pytest.skip("needs the components of Airflow 3", allow_module_level=True)

since_3_3 = pytest.mark.skipif(AIRFLOW < (3, 3), reason="retry policies and the asset state store are Airflow 3.3's")

BATCHES = ("batch-1", "batch-2", "batch-3")


@dataclass
class Waiting:
    """An Airflow whose triggerer can be killed, its bank, and the run that waits for each batch."""

    system: System
    bank: Bank
    runs: dict[str, str]

    @property
    def airflow(self) -> AirflowStack:
        return self.system.airflow

    def add(self, count: int = 1, **fields: Any) -> list[str]:
        """Add transactions to the bank."""
        fields = {"reference": f"Rent of {NAME}", "counterparty": {"name": NAME}, "status": "pending", **fields}
        ids: list[str] = self.bank.control("POST", "transactions", {"count": count, "fields": fields})["ids"]
        return ids

    def wait_for_polls(self, batch: str) -> None:
        """Wait until the triggerer polls for this batch."""
        before = self.polls(batch)
        self.system.until(lambda: self.polls(batch) > before + 1, "two polls")

    def polls(self, batch: str) -> int:
        """Return the number of requests for this batch among the bank's last requests."""
        return sum(batch in request["query"] for request in self.bank.control("GET", "requests"))

    def sensor(self, batch: str) -> dict[str, Any]:
        """Return the task instance of the sensor."""
        [instance] = self.airflow.rest.task_instances("waiting", self.runs[batch])
        return instance

    def told(self) -> list[list[str]]:
        """Return the ids of the events that have started DAGs, in order."""
        rest = self.airflow.rest
        runs = [run for run in reversed(rest.runs("watched")) if run["state"] == "success"]
        return [
            sorted(payload["ids"])
            for run in runs
            for payload in rest.xcom("watched", run["dag_run_id"], "told")
        ]  # fmt: skip

    def kill_triggerer(self) -> None:
        """Kill all processes of the triggerer with SIGKILL, as the kernel does when memory is short."""
        triggerer = self.airflow.processes.started.pop("triggerer")
        family = [triggerer, *triggerer.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=10)

    def start_triggerer(self) -> None:
        command = [sys.executable, "-m", "airflow", *COMPONENTS["triggerer"]]
        self.airflow.processes.start("triggerer", command, self.airflow.env, self.airflow.home)

    def rows(self, query: str) -> list[Any]:
        """Query Airflow's database."""
        with closing(sqlite3.connect(f"file:{self.airflow.home / 'airflow.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def waiting(system: System) -> Iterator[Waiting]:
    """Start one sensor for each batch, the DAG of the new records and the task that the bank asks to wait."""
    rest = system.airflow.rest
    with (
        Sandbox(access_token_life=10.0, transactions=300, login_limit=50, kept_requests=1000) as bank,
        system.connected(bank.port, bank.api_key),
    ):
        bank.fault("rate_limit", "/v3/accounts", retry_after=1234, times=1)
        waiting = Waiting(system, Bank(bank.port), {batch: system.start("waiting", batch=batch) for batch in BATCHES})
        if AIRFLOW >= (3, 3):
            system.start("put_off")
            # Airflow starts the trigger of an asset when it parses a DAG that is not paused.
            rest.set_paused("watched", False)
            rest.call("PUT", f"/parseDagFile/{rest.call('GET', '/dags/watched')['file_token']}")
        yield waiting


def test_a_sensor_ends_when_the_record_is_there(waiting: Waiting) -> None:
    waiting.wait_for_polls("batch-1")
    assert waiting.sensor("batch-1")["state"] == "deferred"
    waiting.add(correlation_id="batch-1")
    waiting.system.finish("waiting", waiting.runs["batch-1"])


@since_3_3
def test_new_records_start_a_dag(waiting: Waiting) -> None:
    query = "select * from asset_state_store join asset on asset.id = asset_id where name = 'completed_transactions'"
    waiting.system.until(lambda: waiting.rows(query), "a first position")
    added = sorted(waiting.add(2, status="completed"))
    waiting.add(status="pending")
    assert waiting.system.until(waiting.told, "a run") == [added]


@since_3_3
def test_when_the_triggerer_dies_nothing_is_lost_and_one_poll_at_most_is_repeated(waiting: Waiting) -> None:
    waiting.wait_for_polls("batch-2")
    batches = [waiting.add(status="completed")]
    waiting.system.until(lambda: batches[0] in waiting.told(), "a run")
    waiting.kill_triggerer()
    batches.append(sorted(waiting.add(3, status="completed")))
    waiting.add(correlation_id="batch-2")
    waiting.start_triggerer()
    waiting.system.finish("waiting", waiting.runs["batch-2"])
    waiting.system.until(lambda: set(batches[1]) <= {i for ids in waiting.told() for i in ids}, "what came meanwhile")
    batches.append(waiting.add(status="completed"))
    waiting.system.until(lambda: batches[2] in waiting.told(), "a run after that")
    # The last event before the kill may not be stored as seen. Then it is emitted again, with the newer ones.
    times = Counter(identity for ids in waiting.told() for identity in ids)
    assert all(times[identity] == 1 for ids in batches[1:] for identity in ids)
    assert times[batches[0][0]] in (1, 2)
    assert max(times.values()) <= 2
    assert sum(count - 1 for count in times.values()) <= 1


def test_a_final_error_in_the_triggerer_fails_the_task_at_once(waiting: Waiting) -> None:
    waiting.wait_for_polls("batch-3")
    fault = waiting.bank.control("POST", "faults", {"kind": "status", "path": "/v3/transactions", "status": 403})
    try:
        waiting.system.until(lambda: waiting.sensor("batch-3")["state"] == "failed", "failed")
    finally:
        waiting.bank.control("DELETE", f"faults/{fault['id']}")
    sensor = waiting.sensor("batch-3")
    log = waiting.airflow.rest.task_log("waiting", waiting.runs["batch-3"], "wait", -1, sensor["try_number"])
    assert "IntergiroForbidden" in log
    assert sensor["try_number"] <= sensor["max_tries"], f"no retry was used up: {log}"


@since_3_3
def test_a_retry_waits_as_the_bank_says(waiting: Waiting) -> None:
    columns = "retry_delay_override, retry_reason"
    query = f"select {columns} from task_instance where dag_id = 'put_off' and state = 'up_for_retry'"
    [(seconds, reason)] = waiting.system.until(lambda: waiting.rows(query), "a retry")
    assert seconds == 1234
    assert "IntergiroRateLimited" in reason


def test_all_of_them_shared_one_session(waiting: Waiting) -> None:
    counters = waiting.bank.counters()
    assert counters["refreshes"] > 0 or AIRFLOW < (3, 3)  # if only some tests run, the token may not have expired
    assert (counters["logins"], counters["refresh_early"], counters["fraud_blocks"]) == (1, 0, 0)


def test_no_token_and_no_account_data_is_written_anywhere(waiting: Waiting) -> None:
    """No log and no row of the database contains them, including trigger events, asset events and positions."""
    home = waiting.airflow.home
    cells = list(database_cells(home / "airflow.db"))
    places = [place for place in files(home) if place[0] != "component-logs/sandbox.log"]
    searched = {"trigger.kwargs", *(["asset_state_store.value", "asset_event.extra"] if AIRFLOW >= (3, 3) else [])}
    assert searched <= {name for name, _ in cells}
    assert any(".trigger." in name for name, _ in places)
    secrets = {*waiting.bank.tokens(), waiting.bank.settings()["api_keys"][0], NAME, json.dumps(NAME)[1:-1]}
    assert find(secrets, cells) == []
    assert find(secrets, places) == []
    assert find(["completed_transactions"], cells), "the search can find something"
