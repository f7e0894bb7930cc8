# SPDX-License-Identifier: Apache-2.0
"""A real Airflow and a sandbox, in which storms run one after another."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from scripts.airflow_stack import ROOT, AirflowStack
from scripts.bank import Bank
from scripts.leaks import database_cells, files, find
from scripts.storm_figures import Figures, Plan, Raw, sum_up

DAGS = ROOT / "scripts" / "storm_dags"
DAG_ID = "storm"
RUN_TIMEOUT = 900.0

#: Few transactions, because storms measure no pulls; and a login limit that storms do not reach.
SANDBOX_FLAGS = ("--transactions", "200", "--login-limit", "100")

#: Where the sandbox itself tells which API key it takes.
TELLS_THE_KEY = "component-logs/sandbox.log"


class Stack:
    """An Airflow with LocalExecutor and SQLite, and a sandbox; `with` starts and ends them."""

    title = "LocalExecutor, SQLite"

    def __init__(self, home: Path, slots: int = 8, progress: Callable[[str], None] = lambda message: None) -> None:
        """Take AIRFLOW_HOME and how many tasks run at once."""
        self.home, self.slots, self.progress = home, slots, progress
        self.airflow = AirflowStack(home, DAGS, self.environment(), progress, self.workers())
        self.bank: Bank
        # A trigger's row lives only as long as its task is deferred.
        self._trigger_cells: set[tuple[str, bytes]] = set()
        self._triggerer_is_warm = False

    def environment(self) -> dict[str, str]:
        """Return Airflow's settings."""
        # At DEBUG Airflow's supervisor logs every Variable that a task writes: no token may be readable there either.
        return {"AIRFLOW__CORE__PARALLELISM": str(self.slots), "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}

    def workers(self) -> dict[str, dict[str, str]]:
        """Return the Celery workers: none."""
        return {}

    def __enter__(self) -> Self:
        """Start everything."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.bank = Bank.start(self.airflow.processes, self.airflow.env, self.home, *SANDBOX_FLAGS)
            self.airflow.start()
            self.airflow.wait_for_dags({DAG_ID})
            self.airflow.rest.set_paused(DAG_ID, False)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        """End everything."""
        self.airflow.stop(5.0)

    # ── A storm ──────────────────────────────────────────────────────────────────────────────────────────
    def run(self, plan: Plan) -> Figures:
        """Run one storm and return its figures."""
        self.bank.control(
            "PATCH",
            "settings",
            {"access_token_life": plan.access_token_life, "session_life": plan.session_life},
        )
        if plan.deferred and not self._triggerer_is_warm:
            # The first request to a new triggerer waits for the API that it builds inside itself: seconds.
            self._connect("storm_warm_up", plan)
            self._run_before("storm_warm_up", plan, 0, 1)
            self._triggerer_is_warm = True
        # Another key is another session.
        self.bank.control("PATCH", "settings", {"api_keys": [str(uuid.uuid4())]})
        conn_id = f"storm_{plan.name}"
        self._connect(conn_id, plan)
        if plan.begin != "cold":
            # One task makes the session, which then goes stale.
            self._run_before(conn_id, plan, 1, 0)
            self.bank.control("POST", "expire_access_tokens" if plan.begin == "expired" else "end_sessions")
        self._trigger_cells.clear()
        before, issued = self.bank.counters(), len(self.bank.issued())
        rest = self.airflow.rest
        self.progress(f"{plan.name}: {plan.tasks} tasks")
        began = time.monotonic()
        run_id = self._trigger(conn_id, plan, plan.workers, plan.deferred)
        rest.wait_for_run(DAG_ID, run_id, RUN_TIMEOUT, self._watch(plan, run_id, before))
        wall = time.monotonic() - began
        load = os.getloadavg()[0]
        after = self.bank.counters()
        instances = rest.task_instances(DAG_ID, run_id)
        leaks, searched = self.leaks()
        log = list(self.task_log(run_id))
        renewals = [line for line in log if _tells_of_a_renewal(line)]
        odd = [line for line in log if line.get("level") not in ("info", "debug", None) and line not in renewals]
        return sum_up(
            plan,
            Raw(
                counters={name: after[name] - before[name] for name in after if isinstance(after[name], int)},
                issued=self.bank.issued()[issued:],
                states=[each["state"] or "none" for each in instances],
                tries=[each["try_number"] for each in instances],
                results=[
                    rest.xcom(DAG_ID, run_id, each["task_id"], each["map_index"])
                    for each in instances
                    if each["map_index"] >= 0 and each["state"] == "success"
                ],
                wall=wall,
                load=load,
                told=len(renewals),
                warned=sum(line["level"] == "warning" for line in renewals),
                oddities=Counter(map(_in_short, odd)),
                leaks=leaks,
                searched=searched,
                exposed=[f"{address}:{port}" for address, port in self.airflow.processes.exposed()],
            ),
        )

    def connection(self, plan: Plan) -> dict[str, Any]:
        """Return the extra of a storm's connection."""
        return {"max_logins_per_hour": plan.max_logins_per_hour}

    def _connect(self, conn_id: str, plan: Plan) -> None:
        """Add a connection with the key that the bank accepts now."""
        self.airflow.rest.put_connection(
            conn_id,
            conn_type="intergiro",
            host="http://127.0.0.1",
            port=self.bank.port,
            password=self.key,
            extra=json.dumps(self.connection(plan)),
        )

    @property
    def key(self) -> str:
        """The API key that the sandbox takes."""
        key: str = self.bank.settings()["api_keys"][0]
        return key

    def _run_before(self, conn_id: str, plan: Plan, workers: int, deferred: int) -> None:
        """Run a few tasks that are no part of the storm."""
        run_id = self._trigger(conn_id, plan, workers, deferred)
        state = self.airflow.rest.wait_for_run(DAG_ID, run_id, RUN_TIMEOUT, self.airflow.processes.check)["state"]
        if state != "success":
            raise RuntimeError(f"the run that prepares {plan.name} has ended as {state}: {self.home / 'logs'}")

    def _trigger(self, conn_id: str, plan: Plan, workers: int, deferred: int) -> str:
        conf = {
            "conn_id": conn_id,
            "tasks": workers,
            "deferred": deferred,
            "calls": plan.calls,
            "seconds": plan.seconds,
        }
        return self.airflow.rest.trigger(DAG_ID, conf=conf)

    def _watch(self, plan: Plan, run_id: str, before: dict[str, Any]) -> Callable[[], None]:
        told_at = time.monotonic()

        def tick() -> None:
            nonlocal told_at
            self.airflow.processes.check()
            if plan.deferred:
                self._trigger_cells.update(self.cells("trigger"))
            if time.monotonic() - told_at > 10:
                told_at = time.monotonic()
                now = self.bank.counters()
                states = Counter(
                    each["state"] or "waiting" for each in self.airflow.rest.task_instances(DAG_ID, run_id)
                )
                self.progress(
                    f"{plan.name}: {', '.join(f'{number} {state}' for state, number in sorted(states.items()))}; "
                    f"logins {now['logins'] - before['logins']}, refreshes {now['refreshes'] - before['refreshes']}"
                )

        return tick

    # ── What it has left ─────────────────────────────────────────────────────────────────────────────────
    def task_log(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield each line of the run's task logs, those of the triggerer included."""
        for path in sorted((self.home / "logs" / f"dag_id={DAG_ID}" / f"run_id={run_id}").rglob("*.log*")):
            for line in path.read_text(errors="replace").splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    yield {"level": "no JSON", "event": line}

    def cells(self, table: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield every value of the metadata database, or of one table."""
        yield from database_cells(self.home / "airflow.db", table)

    def leaks(self) -> tuple[list[str], dict[str, int]]:
        """Return where a token or the API key turns up in plain text, and how much was searched for how much."""
        tokens = set(self.bank.issued())
        cells = list(self.cells())
        places = list(files(self.home))
        triggers = self._trigger_cells
        found = find(tokens | {self.key}, [*cells, *triggers]) + find(tokens, places)
        found += [place for place in find({self.key}, places) if place != TELLS_THE_KEY]
        searched = {"tokens": len(tokens), "files": len(places), "database values": len(cells)}
        return found, searched | ({"values of trigger rows": len(triggers)} if triggers else {})


def _tells_of_a_renewal(line: dict[str, Any]) -> bool:
    text = str(line.get("event", "")).lower()
    known = "generation" in text and ("logged in" in text or "refreshed" in text)
    return known and line.get("level") in ("info", "warning")


def _in_short(line: dict[str, Any]) -> str:
    return f"{line.get('level')} {line.get('logger', '')}: {str(line.get('event', ''))[:200]}"
