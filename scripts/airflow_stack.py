# SPDX-License-Identifier: Apache-2.0
"""A real Airflow 3 on loopback: API server, scheduler, DAG processor, triggerer and, for Celery, workers.

`airflow standalone` is not used: it cannot be bound to loopback, and ends without its children.

    with AirflowStack(home=Path("/tmp/home"), dags=Path("dags_examples")) as airflow:
        run_id = airflow.rest.trigger("my_dag")
        airflow.rest.wait_for_run("my_dag", run_id, timeout=60)
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import requests

from scripts.airflow_rest import AirflowRest
from scripts.processes import GRACE, Group, ProcessDied, free_port

ROOT = Path(__file__).resolve().parent.parent

#: How long the components may take to become healthy, in seconds. About 10 are usual, on a machine that is not busy.
START_TIMEOUT = 300.0

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # The log servers of scheduler and triggerer listen on every address; the API server reads the files itself.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}

#: What the API server's health page calls the components.
HEALTH_NAMES = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without its Airflow settings: the stack has its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}


def _secrets() -> dict[str, str]:
    """Return the keys that the components share: else the first command, `airflow db migrate`, makes some up."""
    return {
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


class AirflowStack:
    """The components of one Airflow, started by `start` (or `with`) and ended by `stop`."""

    def __init__(
        self,
        home: Path,
        dags: Path,
        env: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda message: None,
        workers: Mapping[str, Mapping[str, str]] | None = None,
        python: str = sys.executable,
        api_workers: int = 1,
        database: Path | None = None,
    ) -> None:
        """Take AIRFLOW_HOME, the DAGs folder and further environment variables for every component.

        `progress` is told in a few words what is going on. `workers` are the names of Celery workers, each with
        environment variables of its own. `python` is the interpreter whose Airflow is started. The API server has
        `api_workers` processes. `database` is a migrated SQLite file to start with a copy of; None: migrate a new one,
        which takes seconds.
        """
        self.workers = workers or {}
        self.python = python
        self.components = {**COMPONENTS, "api-server": ("api-server", "--workers", str(api_workers))}
        self.database = database
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.rest = AirflowRest(self.url)
        self.progress = progress
        self.processes = Group(home / "processes.json", home / "component-logs")
        self.env = {
            **clean_environment(),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # The DAG files do not change. By default each is parsed every 30 seconds, which keeps a core busy.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            **(_secrets() if database else {}),
            **(env or {}),
        }

    def airflow(self, *arguments: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run one `airflow` command in this stack's home and return what it did; never raises on exit codes."""
        return subprocess.run(
            [self.python, "-m", "airflow", *arguments],
            env=self.env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self) -> None:
        """Make the database, start the components and wait until all are healthy.

        On any failure, Ctrl-C included, everything is ended again before the exception goes on.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        if self.database:
            shutil.copy(self.database, self.home / "airflow.db")
        else:
            self._migrate()
        try:
            self.progress(f"starting {', '.join(COMPONENTS)}")
            for name, arguments in self.components.items():
                command = [self.python, "-m", "airflow", *arguments]
                self.processes.start(name, command, self.env, self.home)
            for name, own in self.workers.items():
                command = [self.python, "-m", "airflow", "celery", "worker", "--skip-serve-logs"]
                command += ["--celery-hostname", name, "--pid", str(self.home / f"{name}.pid")]
                self.processes.start(name, command, {**self.env, **own}, self.home)
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def _migrate(self) -> None:
        self.progress("migrating the metadata database")
        migrated = self.airflow("db", "migrate")
        if migrated.returncode:
            raise RuntimeError(f"airflow db migrate failed:\n{migrated.stdout[-3000:]}{migrated.stderr[-3000:]}")

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        missing: list[str] = list(HEALTH_NAMES)
        while time.monotonic() < deadline:
            self.processes.check()
            try:
                self.rest.log_in()
                health = self.rest.health()
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.3)
                continue
            missing = [name for name in HEALTH_NAMES if health[name]["status"] != "healthy"]
            if not missing:
                return
            time.sleep(0.3)
        raise ProcessDied(f"not healthy after {START_TIMEOUT:.0f} s: {', '.join(missing)}; see {self.processes.logs}")

    def wait_for_dags(self, dag_ids: set[str], timeout: float = 60.0) -> None:
        """Wait until the DAG processor has stored these DAGs; raises on import errors and after `timeout`."""
        deadline = time.monotonic() + timeout
        while not dag_ids <= self.rest.dag_ids():
            self.processes.check()
            if errors := self.rest.import_errors():
                raise RuntimeError("\n".join(f"{item['filename']}:\n{item['stack_trace']}" for item in errors))
            if time.monotonic() > deadline:
                raise TimeoutError(f"not parsed after {timeout:.0f} s: {dag_ids - self.rest.dag_ids()}")
            time.sleep(0.3)

    def stop(self, grace: float = GRACE) -> None:
        """End every component, by force after `grace` seconds. May be called again, and when nothing was started."""
        self.rest.close()
        self.processes.stop(grace)

    def __enter__(self) -> AirflowStack:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self.stop()
