# SPDX-License-Identifier: Apache-2.0
"""A real API server of Airflow 3 on a real PostgreSQL, and tasks that access it as in Airflow.

A :class:`
.proxy.Proxy`, which can fail, connects the task to the API server, and another one the API server to the
database. The task's side is Airflow's own: the channel to the supervisor, its handling of requests and its API client.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from scripts.processes import Group
from tests.integration.outages.proxy import Proxy
from tests.integration.session.services import Postgres, free_port, wait_until

SECRET = secrets.token_hex(32)


@dataclass
class Server:
    """The addresses of an API server and its database.

    :param api: the proxy in front of the API server.
    :param metadata: the proxy in front of the metadata database.
    :param dsn: the database itself, without the proxy.
    :param secrets: the file of the secrets backend.
    """

    api: Proxy
    metadata: Proxy
    dsn: str
    secrets: Path

    @contextmanager
    def backend(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Put these Variables into the secrets backend for the block."""
        self.secrets.write_text(json.dumps(variables))
        try:
            yield
        finally:
            self.secrets.write_text("{}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}/execution/"


def dsn(postgres: Postgres, database: str, port: int | None = None) -> str:
    """Return the URL of a database for Airflow's settings."""
    password = f":{postgres.password}" if postgres.password else ""
    # A hanging connection must not last longer than a test.
    return f"postgresql+psycopg2://postgres{password}@127.0.0.1:{port or postgres.port}/{database}?connect_timeout=10"


def migrate(postgres: Postgres, name: str) -> None:
    """Create a metadata database as template for copies, because a migration takes seconds."""
    postgres.connect().cursor().execute(f"CREATE DATABASE {name}")
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": dsn(postgres, name)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@contextmanager
def metadata_database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """Create a copy of the template, yield its name, and drop it."""
    name = f"intergiro_{uuid.uuid4().hex[:8]}"
    connection = postgres.connect()
    try:
        connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
        yield name
    finally:
        connection.cursor().execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.close()


@contextmanager
def serving(postgres: Postgres, migrated: str, folder: Path) -> Iterator[Server]:
    """Start an API server with the Execution API only."""
    with ExitStack() as stack:
        name = stack.enter_context(metadata_database(postgres, migrated))
        metadata = stack.enter_context(Proxy(postgres.port))
        port = free_port()
        hidden = folder / "secrets.json"
        hidden.write_text("{}")
        processes = Group(folder / "processes.json", folder)
        stack.callback(processes.stop)
        processes.start(
            "api-server",
            [sys.executable, "-m", "airflow", "api-server", "--apps", "execution", "--workers", "1"],
            {
                **os.environ,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": dsn(postgres, name, metadata.port),
                "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(port),
                "AIRFLOW__SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
                "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"variables_file_path": str(hidden)}),
            },
            folder,
        )

        def answers() -> bool:
            processes.check()
            try:
                return requests.get(f"http://127.0.0.1:{port}/execution/health", timeout=60).ok
            except requests.RequestException:
                return False

        wait_until(answers, 600.0, "the API server answers")
        yield Server(stack.enter_context(Proxy(port)), metadata, dsn(postgres, name), hidden)


@contextmanager
def as_task(url: str, secret: str = SECRET, tries: int = 2, timeout: float = 1.5) -> Iterator[None]:
    """In this block, this process accesses Variables as a task does: through the Execution API at this URL.

    :param secret: the secret with which the API server verifies the tokens of tasks.
    :param tries: the number of attempts of the API client for a request; Airflow's default is 5.
    :param timeout: seconds after which the client gives up a request; Airflow's default is 5.
    """
    import psutil
    import structlog
    import tenacity
    from airflow.api_fastapi.auth.tokens import JWTGenerator
    from airflow.sdk.api import client as api
    from airflow.sdk.execution_time import comms, request_handlers, supervisor, task_runner

    me = uuid.uuid4()
    token = JWTGenerator(
        secret_key=secret, valid_for=3600, audience="urn:airflow.apache.org:task", issuer=None
    ).generate({"sub": str(me)})
    repeats: Any = api.Client.request.retry  # type: ignore[attr-defined]
    stop, repeats.stop = repeats.stop, tenacity.stop_after_attempt(tries)
    wait, repeats.wait = repeats.wait, tenacity.wait_fixed(1.0)
    # The supervisor is a thread here, not a process, and would send masked values to itself.
    mask, request_handlers.mask_secret = request_handlers.mask_secret, lambda *_: None
    ours, theirs = socket.socketpair()
    log = structlog.get_logger("outages")
    client = api.Client(base_url=url, token=token, timeout=timeout)
    parent = supervisor.ActivitySubprocess(
        id=me, pid=os.getpid(), process=psutil.Process(), process_log=log, client=client, stdin=theirs
    )
    serving = threading.Thread(target=_supervise, args=(parent, theirs, log), name="supervisor", daemon=True)
    serving.start()
    try:
        with supervisor.set_supervisor_comms(comms.CommsDecoder(socket=ours)):
            assert task_runner.SUPERVISOR_COMMS
            yield
    finally:
        repeats.stop, repeats.wait = stop, wait
        request_handlers.mask_secret = mask
        ours.close()
        serving.join(30)
        client.close()


def _supervise(parent: Any, pipe: socket.socket, log: Any) -> None:
    """Read requests from the channel and let the supervisor handle them, until the task ends."""
    import msgspec
    from airflow.sdk.execution_time import comms

    handle = parent.handle_requests(log)
    next(handle)
    decoder = msgspec.msgpack.Decoder(comms._RequestFrame)
    with pipe, pipe.makefile("rb") as stream:
        while len(head := stream.read(4)) == 4:
            handle.send(decoder.decode(stream.read(int.from_bytes(head, "big"))))
