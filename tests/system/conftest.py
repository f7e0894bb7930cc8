# SPDX-License-Identifier: Apache-2.0
"""A real Airflow 3 with a scheduler, and a sandbox beside it, shared by all tests that need them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.airflow_stack import ROOT, AirflowStack
from scripts.bank import Bank
from tests.system.browser import Pictures, chromium
from tests.system.statsd import StatsdServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: Short, so that tokens expire while tasks run, but longer than the slowest renewal.
ACCESS_TOKEN_LIFE = 8.0
TRANSACTIONS = 1500

#: Account data of payments, which must not be stored anywhere.
IBAN, NAME, REFERENCE = "SE3550000000054910000003", "Åke Öhrström", "Rent of Åke"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@dataclass
class System:
    """An Airflow, its bank, the directory for the files of pulls, a StatsD server, and OpenLineage's events."""

    airflow: AirflowStack
    bank: Bank
    data: Path
    statsd: StatsdServer
    lineage: Path

    def run(self, dag_id: str, timeout: float = 300.0, **conf: object) -> str:
        """Trigger a DAG, wait for its run, and return the run's id. On failure, show the logs of failed tasks."""
        run_id = self.start(dag_id, **conf)
        return self.finish(dag_id, run_id, timeout)

    def start(self, dag_id: str, **conf: object) -> str:
        """Trigger a DAG and return the run's id."""
        self.airflow.wait_for_dags({dag_id}, 300.0)
        self.airflow.rest.set_paused(dag_id, False)
        return self.airflow.rest.trigger(dag_id, conf=conf)

    def finish(self, dag_id: str, run_id: str, timeout: float = 300.0) -> str:
        """Wait for the end of a run and return its id. If it fails or does not end, show the logs of failed tries."""
        try:
            run = self.airflow.rest.wait_for_run(dag_id, run_id, timeout, self.airflow.processes.check)
            state = run["state"]
        except TimeoutError as error:
            state = str(error)
        if state != "success":
            pytest.fail(self.report(dag_id, run_id, state))
        return run_id

    def report(self, dag_id: str, run_id: str, state: str) -> str:
        """Return the states of a run's tasks, with the log of each try that has failed or has not ended."""
        report = [f"{dag_id} {run_id}: {state}"]
        for instance in self.airflow.rest.task_instances(dag_id, run_id):
            task, index, number = instance["task_id"], instance["map_index"], instance["try_number"]
            report.append(f"{task}[{index}] try {number}: {instance['state']}")
            last = number if instance["state"] in {"failed", "running", "up_for_retry"} else number - 1
            for attempt in range(1, last + 1):
                report.append(self.airflow.rest.task_log(dag_id, run_id, task, index, attempt)[-4000:])
        return "\n".join(report)

    def latest(self, dag_id: str) -> str:
        """Return the id of the last successful run; run the DAG if there is none."""
        runs = self.airflow.rest.runs(dag_id)
        return next((run["dag_run_id"] for run in runs if run["state"] == "success"), None) or self.run(dag_id)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 300.0) -> Any:
        """Wait until the condition is true, and return its value."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            self.airflow.processes.check()
            assert time.monotonic() < deadline, f"{what}: not within {timeout:.0f} s"
            time.sleep(0.4)
        return found

    def connect(self, port: int, key: str, host: str = "http://127.0.0.1") -> None:
        """Let the default connection lead to this bank."""
        self.airflow.rest.put_connection("intergiro_default", conn_type="intergiro", host=host, port=port, password=key)

    @contextmanager
    def connected(self, port: int, key: str, host: str = "http://127.0.0.1") -> Iterator[None]:
        """Let the default connection lead to another bank inside a `with` block."""
        self.connect(port, key, host)
        try:
            yield
        finally:
            self.connect(self.bank.port, self.bank.settings()["api_keys"][0])


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start Chromium, once for this directory: while it runs, no test can call `asyncio.run`."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="session")
def system(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Start Airflow and the bank. It takes about ten seconds."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    shutil.copytree(Path(__file__).with_name("dags"), dags)
    for example in (ROOT / "dags_examples").glob("*.py"):
        # A try that fails on a busy machine is repeated within the test's time.
        (dags / example.name).write_text(
            example.read_text().replace('"retry_delay": timedelta(minutes=5)', '"retry_delay": timedelta(seconds=5)')
        )
    data = home / "data"
    statsd = StatsdServer()
    lineage = home / "lineage"  # one file for each OpenLineage event
    lineage.mkdir()
    env = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": f"{lineage}/event"}),
        "AIRFLOW__OPENLINEAGE__INCLUDE_FULL_TASK_INFO": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__PARALLELISM": "8",
        # Another triggerer takes over soon after a kill. The default is half a minute.
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
        "AIRFLOW_VAR_INTERGIRO_PAYEE": json.dumps({"name": NAME, "iban": IBAN, "bic": "ESSESESS"}, ensure_ascii=False),
        "AIRFLOW_VAR_REF": REFERENCE,
        "INTERGIRO_EXAMPLE_TARGET": f"file://{data}/examples",
        **statsd.env,
    }
    airflow = AirflowStack(home, dags, env, database=airflow_db)
    try:
        bank = Bank.start(
            airflow.processes,
            airflow.env,
            home,
            *(
                "--access-token-life",
                str(ACCESS_TOKEN_LIFE),
                "--transactions",
                str(TRANSACTIONS),
                "--login-limit",
                "50",
            ),
        )
        airflow.start()
        system = System(airflow, bank, data, statsd, lineage)
        system.connect(bank.port, bank.settings()["api_keys"][0])
        with statsd:
            yield system
    finally:
        airflow.stop(grace=1.0)
