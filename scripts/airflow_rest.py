# SPDX-License-Identifier: Apache-2.0
"""The few calls of Airflow's public REST API (v2) that the demo and the system tests need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

#: The states in which a run or a task instance stays.
RUN_ENDED = {"success", "failed"}

#: One request's limit, in seconds: a request that waits longer than this for a loopback server never ends.
REQUEST_TIMEOUT = 60.0


class AirflowRest:
    """A client of an API server whose simple auth manager makes every user an admin."""

    def __init__(self, url: str, retries: int = 0) -> None:
        """Take the server's address, such as http://127.0.0.1:8080, and how often a failed GET is repeated."""
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False
        if retries:
            again = Retry(retries, backoff_factor=1.0, status_forcelist=(500, 503))
            self._http.mount("http://", HTTPAdapter(max_retries=again))

    def close(self) -> None:
        """Close the connections: a server that is to stop would wait for them."""
        self._http.close()

    def log_in(self) -> None:
        """Fetch a token, which all later calls carry."""
        response = self._http.get(f"{self.url}/auth/token", timeout=REQUEST_TIMEOUT)
        response.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def call(
        self, method: str, path: str, json: Any = None, headers: dict[str, str] | None = None, **query: Any
    ) -> Any:
        """Send one request below /api/v2 and return the decoded response (None where there is none)."""
        response = self.request(method, f"/api/v2{path}", json=json, headers=headers, params=query)
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:2000]}")
        return response.json() if response.content else None

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send one authenticated request to any path of the server."""
        return self._http.request(method, f"{self.url}{path}", timeout=REQUEST_TIMEOUT, **options)

    def health(self) -> dict[str, Any]:
        """Return the health of the components, by name."""
        health: dict[str, Any] = self.call("GET", "/monitor/health")
        return health

    # ── DAGs and runs ────────────────────────────────────────────────────────────────────────────────────
    def dag_ids(self) -> set[str]:
        """Return the ids of all DAGs that the DAG processor has stored."""
        return {dag["dag_id"] for dag in self.call("GET", "/dags", limit=100)["dags"]}

    def import_errors(self) -> list[dict[str, Any]]:
        """Return the import errors of the DAG files."""
        errors: list[dict[str, Any]] = self.call("GET", "/importErrors")["import_errors"]
        return errors

    def set_paused(self, dag_id: str, paused: bool) -> None:
        """Pause a DAG, or let the scheduler have it."""
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def trigger(
        self, dag_id: str, conf: dict[str, Any] | None = None, logical_date: str | None = None, run_id: str = ""
    ) -> str:
        """Start a run by hand and return its id."""
        body = {"logical_date": logical_date, "conf": conf or {}, **({"dag_run_id": run_id} if run_id else {})}
        started: str = self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return started

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG, the newest first."""
        runs: list[dict[str, Any]] = self.call("GET", f"/dags/{dag_id}/dagRuns", order_by="-run_after")["dag_runs"]
        return runs

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        run: dict[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id)}")
        return run

    def wait_for_run(
        self, dag_id: str, run_id: str, timeout: float, tick: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Wait until a run has ended and return it; call `tick` about twice a second meanwhile.

        Raises TimeoutError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            run = self.run(dag_id, run_id)
            if run["state"] in RUN_ENDED:
                return run
            tick()
            time.sleep(0.5)
        raise TimeoutError(f"{dag_id} {run_id} has not ended within {timeout:.0f} s")

    def clear(self, dag_id: str, run_id: str, tasks: list[Any], downstream: bool = False) -> None:
        """Clear task instances, whatever their state: ids of tasks, or pairs of an id and a map index."""
        body = {
            "dry_run": False, "dag_run_id": run_id, "task_ids": tasks, "only_failed": False, "reset_dag_runs": True,
            "include_downstream": downstream,
        }  # fmt: skip
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    # ── What a run has left ──────────────────────────────────────────────────────────────────────────────
    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return a run's task instances, one for each map index."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call(
                "GET",
                f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances",
                limit=100,
                offset=len(found),
                order_by="id",
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Return one XCom value, decoded."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, map_index=map_index, deserialize=False)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Return the log of one try as text, one event a line."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, map_index=map_index, full_content=True)["content"]
        return "\n".join(str(line) for line in content)

    # ── Connections and Variables ────────────────────────────────────────────────────────────────────────
    def put_connection(self, connection_id: str, **fields: Any) -> None:
        """Create a connection, or replace the one of that id."""
        body = {"connection_id": connection_id, **fields}
        known = self.call("GET", "/connections", connection_id_pattern=connection_id)["connections"]
        if any(item["connection_id"] == connection_id for item in known):
            self.call("PATCH", f"/connections/{connection_id}", json=body)
        else:
            self.call("POST", "/connections", json=body)

    def variables(self) -> dict[str, Any]:
        """Return all Variables as the API shows them: with what is sensitive masked."""
        return {item["key"]: item["value"] for item in self.call("GET", "/variables", limit=100)["variables"]}
