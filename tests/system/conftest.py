# SPDX-License-Identifier: Apache-2.0
"""A real Airflow 3 with a scheduler, and a sandbox beside it, shared by all tests that need them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.airflow_stack import ROOT, AirflowStack
from scripts.bank import Bank
from tests.system.statsd import StatsdServer

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: Short, so that tokens expire under running tasks; long enough for the slowest renewal to pay off.
ACCESS_TOKEN_LIFE = 8.0
TRANSACTIONS = 1500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and give real Airflows the time that they need."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(300))


@dataclass
class System:
    """An Airflow, the bank it talks to, the directory that pulls may write below, and OpenLineage's events."""

    airflow: AirflowStack
    bank: Bank
    data: Path
    statsd: StatsdServer
    lineage: Path

    def run(self, dag_id: str, timeout: float = 120.0, **conf: object) -> str:
        """Trigger a DAG, wait for its end and return the run's id; fails with the logs of what failed."""
        run_id = self.start(dag_id, **conf)
        return self.finish(dag_id, run_id, timeout)

    def start(self, dag_id: str, **conf: object) -> str:
        """Trigger a DAG and return the run's id."""
        self.airflow.wait_for_dags({dag_id}, 120.0)
        self.airflow.rest.set_paused(dag_id, False)
        return self.airflow.rest.trigger(dag_id, conf=conf)

    def finish(self, dag_id: str, run_id: str, timeout: float = 120.0) -> str:
        """Wait for the end of a run and return its id; fails with the logs of what failed."""
        rest = self.airflow.rest
        state = rest.wait_for_run(dag_id, run_id, timeout, self.airflow.processes.check)["state"]
        if state != "success":
            report = [f"{dag_id} {run_id}: {state}"]
            for instance in rest.task_instances(dag_id, run_id):
                report.append(f"{instance['task_id']}[{instance['map_index']}]: {instance['state']}")
                if instance["state"] == "failed":
                    task, index, number = instance["task_id"], instance["map_index"], instance["try_number"]
                    report.append(rest.task_log(dag_id, run_id, task, index, number)[-4000:])
            pytest.fail("\n".join(report))
        return run_id


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Start it all: about ten seconds."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    shutil.copytree(Path(__file__).with_name("dags"), dags)
    for example in (ROOT / "dags_examples").glob("*.py"):
        shutil.copy(example, dags)
    data = home / "data"
    statsd = StatsdServer()
    lineage = home / "lineage"  # one file for each event that OpenLineage is told
    lineage.mkdir()
    env = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": f"{lineage}/event"}),
        "AIRFLOW__OPENLINEAGE__INCLUDE_FULL_TASK_INFO": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "INTERGIRO_EXAMPLE_TARGET": f"file://{data}/examples",
        **statsd.env,
    }
    airflow = AirflowStack(home, dags, env)
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
        key = bank.settings()["api_keys"][0]
        airflow.rest.put_connection(
            "intergiro_default", conn_type="intergiro", host="http://127.0.0.1", port=bank.port, password=key
        )
        with statsd:
            yield System(airflow, bank, data, statsd, lineage)
    finally:
        airflow.stop()
