# SPDX-License-Identifier: Apache-2.0
"""The examples, run by the Airflow of an environment that has the installed package: `scripts.package_matrix` does.

On Airflow 3 by its scheduler, workers and triggerer, with the connection stored through its API; on Airflow 2.11, which
runs no tasks side by side on SQLite, by `airflow dags test`.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.sandbox import Sandbox
from scripts.airflow_stack import ROOT, AirflowStack, clean_environment
from scripts.bank import Bank

EXAMPLES = ROOT / "dags_examples"
#: Runs by hand. The one that waits is first: the others are made while the triggerer waits for a transaction.
WAITING = "intergiro_wait_for_event"
RUNS = ("intergiro_call_endpoint", "intergiro_daily", "intergiro_hook_in_task", "intergiro_http_operator")
NEWER = {"intergiro_on_new_transactions": (3, 0), "intergiro_partitions": (3, 2), "intergiro_increments": (3, 3)}
#: A status that no transaction has until one is added.
AWAITED = "awaited"
#: Seconds for one run. The example that waits polls once a minute.
PATIENCE = 150.0


class ExampleFailed(Exception):
    """An example did not do in this Airflow what it should."""


def run_examples(python: str, home: Path, airflow: tuple[int, int]) -> dict[str, Any]:
    """Run the examples that this Airflow can run; return their number and what else was seen.

    :param python: the environment's interpreter.
    :param home: a folder of this environment's own.
    :raises ExampleFailed: and whatever else goes wrong.
    """
    if airflow < (3, 0):
        return _on_airflow_2(python, home)
    names = [*RUNS, *(name for name, since in NEWER.items() if airflow >= since)]
    environment = {"INTERGIRO_EXAMPLE_TARGET": f"file://{home}/pulled", "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        os.environ.pop(name, None)
    stack = AirflowStack(home / "stack", EXAMPLES, environment, python=python)
    stack.home.mkdir(parents=True, exist_ok=True)
    try:
        bank = Bank.start(stack.processes, stack.env, stack.home, "--transactions", "5000", "--days", "5")
        stack.start()
        found = _form_and_connection(stack, bank)
        stack.wait_for_dags({WAITING, *names})
        if errors := stack.rest.import_errors():
            raise ExampleFailed(str(errors))
        _run_all(stack, bank, names)
        found["examples"] = len(names) + 1
        found["examples_logins"] = bank.counters()["logins"]
        return found
    finally:
        stack.stop()


def _form_and_connection(stack: AirflowStack, bank: Bank) -> dict[str, Any]:
    """Check the connection's form and the test button through the UI's API."""
    [kind] = [
        each
        for each in stack.rest.request("GET", "/ui/connections/hook_meta").json()
        if each["connection_type"] == "intergiro"
    ]
    if set(kind["extra_fields"]) != set(get_provider_info()["connection-types"][0]["conn-fields"]):
        raise ExampleFailed(f"the form has the fields {sorted(kind['extra_fields'])}")
    if kind["standard_fields"]["password"]["title"] != "API key":
        raise ExampleFailed(f"the form calls the password {kind['standard_fields']['password']}")
    connection = {
        "connection_id": "intergiro_default", "conn_type": "intergiro", "host": "http://127.0.0.1", "port": bank.port,
        "password": bank.settings()["api_keys"][0],
    }  # fmt: skip
    tested = stack.rest.call("POST", "/connections/test", json=connection)
    if not tested["status"]:
        raise ExampleFailed(f"the connection test says: {tested['message']}")
    stack.rest.put_connection(connection.pop("connection_id"), **connection)
    return {"form_fields": len(kind["extra_fields"])}


def _run_all(stack: AirflowStack, bank: Bank, names: list[str]) -> None:
    """Run them; the one that waits has to be seen deferred, and one to be started by an event."""
    for name in (WAITING, *names):
        stack.rest.set_paused(name, False)
    waiting = stack.rest.trigger(WAITING, conf={"status": AWAITED})
    deadline = time.monotonic() + PATIENCE
    # Until the triggerer, too, has asked: Airflow 3.0 and 3.1 call a task failed whose trigger fires before the
    # scheduler knows that the worker has let go of it.
    while _state(stack, WAITING, waiting, "wait") != "deferred" or _polls(bank) < 2:
        if time.monotonic() > deadline:
            raise ExampleFailed(f"{WAITING} is not deferred")
        time.sleep(0.2)
    bank.control("POST", "transactions", {"count": 1, "fields": {"status": AWAITED}})
    runs = {name: stack.rest.trigger(name) for name in names} | {WAITING: waiting}
    for name, run in runs.items():
        ended = stack.rest.wait_for_run(name, run, PATIENCE, stack.processes.check)
        if ended["state"] != "success":
            logs = [
                stack.rest.task_log(name, run, each["task_id"], each["map_index"])
                for each in stack.rest.task_instances(name, run)
                if each["try_number"]
            ]
            raise ExampleFailed(f"{name}: {ended['state']}\n" + "\n".join(logs)[-4000:])
    if "intergiro_on_new_transactions" in names:
        _wait_for_an_event(stack, bank, "intergiro_on_new_transactions")
    [link] = stack.rest.call("GET", f"/dags/intergiro_call_endpoint/dagRuns/{runs['intergiro_call_endpoint']}"
                             "/taskInstances/accounts/links")["extra_links"].values()  # fmt: skip
    if not str(link).startswith("https://www.intergiro.com"):
        raise ExampleFailed(f"the link of a task is {link}")


def _wait_for_an_event(stack: AirflowStack, bank: Bank, dag_id: str) -> None:
    """Wait for the run that new transactions start, and for its success."""
    deadline = time.monotonic() + PATIENCE
    while not (started := [run for run in stack.rest.runs(dag_id) if run["run_type"] == "asset_triggered"]):
        if time.monotonic() > deadline:
            raise ExampleFailed(f"no event has started {dag_id}")
        # Again and again: what was there at the trigger's first look is not new to it.
        bank.control("POST", "transactions", {"count": 1, "fields": {}})
        time.sleep(10)
    state = stack.rest.wait_for_run(dag_id, started[0]["dag_run_id"], PATIENCE, stack.processes.check)["state"]
    if state != "success":
        raise ExampleFailed(f"{dag_id}, started by an event: {state}")


def _polls(bank: Bank) -> int:
    """How often the bank was asked for what the example waits for."""
    return sum(AWAITED in request["query"] for request in bank.control("GET", "requests"))


def _state(stack: AirflowStack, dag_id: str, run_id: str, task_id: str) -> str | None:
    for each in stack.rest.task_instances(dag_id, run_id):
        if each["task_id"] == task_id:
            state: str | None = each["state"]
            return state
    return None


def _on_airflow_2(python: str, home: Path) -> dict[str, Any]:
    with Sandbox(transactions=5000, days=5) as bank:
        env = clean_environment() | {
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(),
            "INTERGIRO_EXAMPLE_TARGET": f"file://{home}/pulled",
        }
        for name in (WAITING, *RUNS):
            done = subprocess.run(
                [python, "-m", "airflow", "dags", "test", name], env=env, cwd=home, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
            if done.returncode or "state=success" not in done.stdout:
                raise ExampleFailed(f"{name}: exit code {done.returncode}\n{done.stdout[-4000:]}")
        return {"examples": len(RUNS) + 1, "examples_logins": bank.counters().logins}
