# SPDX-License-Identifier: Apache-2.0
"""`make demo`: run the nightly pull in a real Airflow 3, then print a summary.

A sandbox stands in for the bank, with access tokens that live a few seconds, so that the one session which all
tasks share has to be renewed during the run. The nightly DAG is unpaused, and Airflow's scheduler makes its
run. Everything listens on loopback only, lives in `.demo/` and is ended at the end, whatever happens.

    python -m scripts.demo run     # and end everything
    python -m scripts.demo up      # leave it running
    python -m scripts.demo down
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from scripts.airflow_stack import ROOT, AirflowStack
from scripts.bank import Bank
from scripts.demo_summary import describe, warehouse
from scripts.processes import Group, ProcessDied, interrupt_on_sigterm

HOME = ROOT / ".demo"
AIRFLOW_HOME = HOME / "airflow"
DATA = HOME / "data"
DAG_ID = "intergiro_nightly"
LOAD_DAG_ID = "intergiro_to_duckdb"
DATABASE = HOME / "warehouse.duckdb"

#: The bank's real tokens live 15 minutes. A renewal takes about three seconds, see the session protocol.
ACCESS_TOKEN_LIFE = 8
SANDBOX_FLAGS = (
    *("--access-token-life", str(ACCESS_TOKEN_LIFE)),
    *("--transactions", "150000"),
    *("--latency", "1.2"),
)

#: Accounts that pay between the two loads.
PAYMENTS = 5

#: How long the scheduled run may take to appear and to end, in seconds. About 30 are usual.
RUN_TIMEOUT = 240.0

#: How long the components may take to end, in seconds. Nothing of the demo is worth waiting for: Airflow's
#: triggerer always waits ten seconds for a child that has ended already, the scheduler for running tasks.
GRACE = 5.0


class Progress:
    """Tells what is going on, with the seconds since the start."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._last = ""
        self._told_at = 0.0

    def __call__(self, message: str) -> None:
        """Print one line."""
        elapsed = time.monotonic() - self._start
        print(f"{elapsed:6.1f} s  {message}", flush=True)
        self._last, self._told_at = message, elapsed

    def still(self, message: str) -> None:
        """Print one line if it says something new, or when nothing was said for five seconds."""
        if message != self._last or time.monotonic() - self._start - self._told_at > 5:
            self(message)


def leftover() -> Group:
    """Return what an earlier command has left running."""
    return Group.from_file(AIRFLOW_HOME / "processes.json", AIRFLOW_HOME / "component-logs")


def start(tell: Progress) -> tuple[AirflowStack, Bank]:
    """Start the sandbox and Airflow in a fresh home, and store the connection between them."""
    if (old := leftover()).started:
        tell("ending what an earlier demo has left running")
        old.stop(GRACE)
    shutil.rmtree(HOME, ignore_errors=True)
    AIRFLOW_HOME.mkdir(parents=True)
    DATA.mkdir()
    airflow = AirflowStack(
        AIRFLOW_HOME,
        ROOT / "dags_examples",
        env={
            "INTERGIRO_EXAMPLE_TARGET": f"file://{DATA}",
            "INTERGIRO_EXAMPLE_DATABASE": str(DATABASE),
            # The button that tests a connection is off by default.
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            # A change to an example is seen soon.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        },
        progress=tell,
    )
    try:
        tell(f"starting the sandbox; an access token lives {ACCESS_TOKEN_LIFE} s")
        bank = Bank.start(airflow.processes, airflow.env, HOME, *SANDBOX_FLAGS)
        airflow.start()
        airflow.rest.put_connection(
            "intergiro_default",
            conn_type="intergiro",
            description="The sandbox of this demo",
            host="http://127.0.0.1",
            port=bank.port,
            password=bank.settings()["api_keys"][0],
        )
        airflow.wait_for_dags({DAG_ID, LOAD_DAG_ID})
    except BaseException:
        airflow.stop(GRACE)
        raise
    return airflow, bank


def scheduled_run(airflow: AirflowStack, bank: Bank, tell: Progress) -> dict[str, str]:
    """Unpause the DAG, wait for the run that the scheduler makes of it, and return the ended run."""
    tell(f"Airflow is up; unpausing {DAG_ID} and waiting for its scheduled run")
    airflow.rest.set_paused(DAG_ID, False)
    deadline = time.monotonic() + RUN_TIMEOUT
    runs: list[dict[str, str]] = []
    while not runs:
        airflow.processes.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the scheduler has made no run of {DAG_ID} within {RUN_TIMEOUT:.0f} s")
        runs = [run for run in airflow.rest.runs(DAG_ID) if run["run_type"] == "scheduled"]
        time.sleep(0.3)
    run_id = runs[0]["dag_run_id"]
    tell(f"the scheduler has made {run_id}")

    def tick() -> None:
        airflow.processes.check()
        counters = bank.counters()
        states: dict[str, int] = {}
        for instance in airflow.rest.task_instances(DAG_ID, run_id):
            state = instance["state"] or "waiting"
            states[state] = states.get(state, 0) + 1
        tasks = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        renewals = f"logins {counters['logins']}, refreshes {counters['refreshes']}"
        tell.still(f"tasks: {tasks}; session: {renewals}")

    return airflow.rest.wait_for_run(DAG_ID, run_id, max(10.0, deadline - time.monotonic()), tick)


def load(airflow: AirflowStack, bank: Bank, tell: Progress) -> dict[str, Any]:
    """Load accounts and transactions into DuckDB, before and after payments; return what the reconciliation said."""
    import duckdb

    bank.control("PATCH", "settings", {"latency": 0.0})
    airflow.rest.set_paused(LOAD_DAG_ID, False)
    run_id = ""
    for number in (1, 2):
        tell(f"loading into {DATABASE.name}, run {number}")
        run_id = airflow.rest.trigger(LOAD_DAG_ID)
        run = airflow.rest.wait_for_run(LOAD_DAG_ID, run_id, RUN_TIMEOUT, airflow.processes.check)
        if run["state"] != "success":
            raise RuntimeError(f"{LOAD_DAG_ID} has failed: see the tasks' logs")
        if number == 1:
            with duckdb.connect(str(DATABASE), read_only=True) as connection:
                accounts = connection.execute("SELECT id, currency FROM accounts LIMIT ?", [PAYMENTS]).fetchall()
            for account, currency in accounts:
                fields = {"account_id": account, "currency": currency, "type": "bank-transfer"}
                payment = {"api": "v3", "count": 2, "fields": {**fields, "amount": 12_345, "status": "completed"}}
                bank.control("POST", "transactions", payment)
    found: dict[str, Any] = airflow.rest.xcom(LOAD_DAG_ID, run_id, "compare")
    return found


def demo(keep: bool) -> int:
    """Do it all; return an exit code."""
    tell = Progress()
    airflow, bank = start(tell)
    kept = False
    try:
        run = scheduled_run(airflow, bank, tell)
        compared = load(airflow, bank, tell) if run["state"] == "success" else {}
        exposed = airflow.processes.exposed()
        tell(f"the run has ended: {run['state']}")
        print(describe(airflow, bank, run, DATA, keep, warehouse(DATABASE, compared)))
        if exposed:
            print(f"Something listens beyond loopback: {exposed}", file=sys.stderr)
        if run["state"] != "success" or exposed:
            return 1
        kept = keep
        if keep:
            print(f"Airflow:  {airflow.url}  (no password: it listens on this machine only)")
            print(f"Sandbox:  {bank.url}")
            print("It runs until you say `make down`.")
        return 0
    finally:
        if not kept:
            tell("stopping everything")
            airflow.stop(GRACE)
            tell("nothing of it is left running")


def main() -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description="The demo: see the module's documentation.")
    parser.add_argument("command", choices=("run", "up", "down"))
    command = parser.parse_args().command
    interrupt_on_sigterm()
    if command == "down":
        group = leftover()
        print("stopping " + ", ".join(group.started) if group.started else "nothing is running", flush=True)
        group.stop(GRACE)
        return 0
    try:
        return demo(keep=command == "up")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ProcessDied, RuntimeError, TimeoutError) as error:
        print(f"The demo has failed: {error}\nLogs are in {Path(AIRFLOW_HOME).relative_to(ROOT)}/", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
