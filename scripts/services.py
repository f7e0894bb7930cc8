# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and Redis servers of our own, each on a free port of loopback.

Where the program that starts one is missing, a server that listens at its usual address is used; `own` tells which.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from scripts.processes import free_port

START = 120.0
PASSWORD = "n0t-for-logs"


class Missing(Exception):
    """There is neither a program that starts the server nor one that listens at its usual address."""


def wait_until(holds: Callable[[], bool], seconds: float = START, what: str = "") -> None:
    """Wait until this holds; raises TimeoutError after so many seconds."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds} s: {what or holds}")
        time.sleep(0.02)


def program(name: str, *elsewhere: str) -> str | None:
    """Return the path of a program on PATH, else in one of the directories (patterns), else None."""
    found = [path for pattern in elsewhere for path in sorted(glob.glob(f"{pattern}/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


def unprivileged() -> dict[str, Any]:
    """How to start a server that refuses to run as root."""
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that an unprivileged server can use."""
    directory = Path(tempfile.mkdtemp(prefix="intergiro-service-"))
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A server process; `own` says whether it is ours to stop. `how` is the signal that ends it soon and cleanly."""

    how = signal.SIGTERM

    def __init__(self, port: int, command: list[str] | None = None, password: str | None = PASSWORD) -> None:
        """Take the loopback port and the command that starts it; None: the server is not ours."""
        self.port, self.password = port, password
        self.own = command is not None
        self._command = command or []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it is ours, and wait until it answers."""
        if not self.own:
            return
        process = self._process = subprocess.Popen(
            self._command,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C must reach us alone, so that what uses the server ends before it.
            start_new_session=True,
            **unprivileged(),
        )
        wait_until(lambda: process.poll() is not None or self.answers(), what=" ".join(self._command))
        if process.poll() is not None:
            raise RuntimeError(f"ended at once: {' '.join(self._command)}")

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it, if it is ours."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how or self.how)
            try:
                process.wait(START)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def answers(self) -> bool:
        """Return whether the server accepts our connection."""
        raise NotImplementedError

    def connection(self) -> dict[str, Any]:
        """An Airflow connection to it, as a document."""
        raise NotImplementedError

    def connection_json(self) -> str:
        """The same as text."""
        return json.dumps(self.connection())


class Postgres(Server):
    """A PostgreSQL."""

    kind = "postgres"
    how = signal.SIGINT

    def connect(self) -> Any:
        """Return a connection of psycopg2, which commits each statement."""
        import psycopg2  # type: ignore[import-untyped]

        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self.password,
            dbname="postgres",
            connect_timeout=5,
        )
        connection.autocommit = True
        return connection

    def answers(self) -> bool:
        """Return whether the server accepts our connection."""
        import psycopg2

        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def ask(self, statement: str, *parameters: Any) -> list[Any]:
        """Return the rows of a statement."""
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def connection(self) -> dict[str, Any]:
        """An Airflow connection to it, as a document."""
        return {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": self.port,
            "schema": "postgres",
            "login": "postgres",
            "password": self.password,
        }


class Redis(Server):
    """A Redis."""

    kind = "redis"

    def client(self) -> Any:
        """Return a client of redis-py."""
        import redis

        return redis.Redis("127.0.0.1", self.port, password=self.password, socket_timeout=5)

    def answers(self) -> bool:
        """Return whether the server accepts our connection."""
        import redis

        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def connection(self) -> dict[str, Any]:
        """An Airflow connection to it, as a document."""
        return {"conn_type": "redis", "host": "127.0.0.1", "port": self.port, "password": self.password}


SomeServer = TypeVar("SomeServer", bound=Server)
SomePostgres = TypeVar("SomePostgres", bound=Postgres)
SomeRedis = TypeVar("SomeRedis", bound=Redis)


@contextmanager
def running(server: SomeServer) -> Iterator[SomeServer]:
    """The server, started and at last ended."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def postgres(made: type[SomePostgres], max_connections: int = 20, **settings: Any) -> Iterator[SomePostgres]:
    """A PostgreSQL of this class with a database of its own.

    :param settings: of the server, where it is our own.
    :raises Missing: if there is none.
    """
    initdb = program("initdb", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
    if initdb is None:
        usual = made(5432)
        if not usual.answers():
            raise Missing("no PostgreSQL: neither initdb is here nor does 127.0.0.1:5432 let user postgres in")
        yield usual
        return
    server = str(Path(os.path.realpath(initdb)).with_name("postgres"))
    with scratch() as directory:
        data = str(directory / "data")
        secret = directory / "secret"
        secret.write_text(PASSWORD)
        # Written by us, read by them.
        secret.chmod(0o644)
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "-N"],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=directory,
            **unprivileged(),
        )
        port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": max_connections,
            "shared_buffers": "8MB",
            **settings,
        }
        command = [server, "-D", data, *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))]
        with running(made(port, command)) as started:
            yield started


@contextmanager
def redis(made: type[SomeRedis]) -> Iterator[SomeRedis]:
    """A Redis of this class.

    :raises Missing: if there is none.
    """
    server = program("redis-server", "/usr/sbin", "/usr/local/bin") or program("valkey-server", "/usr/sbin")
    if server is None:
        usual = made(6379, password=None)
        if not usual.answers():
            raise Missing("no Redis: neither redis-server is here nor does a server respond at 127.0.0.1:6379")
        yield usual
        return
    with scratch() as directory:
        port = free_port()
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": directory,
            "save": "",
            "appendonly": "no",
            "requirepass": PASSWORD,
        }
        command = [server, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        with running(made(port, command)) as started:
            yield started
