# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL, PgBouncer and Redis servers of the tests' own, each on a free port of loopback.

Where the program that starts one is missing, a server that listens at its usual address is used; what that must not
suffer (being stopped) is skipped then. Where there is neither, the tests are skipped, or fail if `CI` is set.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

START = 20.0
PASSWORD = "n0t-for-logs"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(holds: Callable[[], bool], seconds: float = START, what: str = "") -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds} s: {what or holds}"
        time.sleep(0.02)


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything has to run."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *elsewhere: str) -> str | None:
    found = [path for pattern in elsewhere for path in sorted(glob.glob(f"{pattern}/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


def unprivileged() -> dict[str, Any]:
    """How to start a server that refuses to run as root."""
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that an unprivileged server can use, which pytest's own are not."""
    directory = Path(tempfile.mkdtemp(prefix="intergiro-service-"))
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A server process; `own` says whether it is ours to stop."""

    def __init__(self, port: int, command: list[str] | None = None, password: str | None = PASSWORD) -> None:
        self.port, self.password = port, password
        self.own = command is not None
        self._command = command or []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self.own:
            return
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = self._process = subprocess.Popen(self._command, cwd="/", **quiet, **unprivileged())
        wait_until(lambda: process.poll() is not None or self.answers(), what=" ".join(self._command))
        assert process.poll() is None, f"ended at once: {' '.join(self._command)}"

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(START)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Without the server, which comes back with nothing of its locks."""
        if not self.own:
            pytest.skip("this server is not ours to stop")
        self.stop(signal.SIGQUIT if isinstance(self, Postgres) else signal.SIGKILL)
        try:
            yield
        finally:
            self.start()

    def answers(self) -> bool:
        raise NotImplementedError

    def connection(self) -> dict[str, Any]:
        """An Airflow connection to it, as a document."""
        raise NotImplementedError

    def connection_json(self) -> str:
        return json.dumps(self.connection())


class Postgres(Server):
    kind = "postgres"

    def connect(self) -> Any:
        import psycopg2

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
        import psycopg2

        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def ask(self, statement: str, *parameters: Any) -> list[Any]:
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def holders(self, name: str) -> list[int]:
        """The server processes that hold the lock of this name."""
        from intergiro_provider.session.postgres_lock import key_of

        high, low = divmod(key_of(name) % 2**64, 2**32)
        rows = self.ask(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s",
            high,
            low,
        )
        return [pid for (pid,) in rows]

    def take_away(self, name: str) -> None:
        """End the session that holds the lock."""
        pids = self.holders(name)
        assert len(pids) == 1
        self.ask("SELECT pg_terminate_backend(%s)", pids[0])
        wait_until(lambda: not self.holders(name))

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """While the server process that holds the lock does not answer."""
        if not self.own:
            pytest.skip("this server is not ours to stop")
        holder = psutil.Process(self.holders(name)[0])
        holder.suspend()
        try:
            yield
        finally:
            holder.resume()

    def connection(self) -> dict[str, Any]:
        return {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": self.port,
            "schema": "postgres",
            "login": "postgres",
            "password": self.password,
        }


class Redis(Server):
    kind = "redis"

    def client(self) -> Any:
        import redis

        return redis.Redis("127.0.0.1", self.port, password=self.password, socket_timeout=5)

    def answers(self) -> bool:
        import redis

        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def holders(self, name: str) -> list[int]:
        return [1] if self.client().exists(f"intergiro_lock:{name}") else []

    def take_away(self, name: str) -> None:
        assert self.client().delete(f"intergiro_lock:{name}") == 1

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        if self._process is None:
            pytest.skip("this server is not ours to stop")
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def connection(self) -> dict[str, Any]:
        return {"conn_type": "redis", "host": "127.0.0.1", "port": self.port, "password": self.password}


@contextmanager
def running(server: Server) -> Iterator[Any]:
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGINT if isinstance(server, Postgres) else signal.SIGTERM)


@contextmanager
def postgres() -> Iterator[Postgres]:
    initdb = program("initdb", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
    if initdb is None:
        usual = Postgres(5432)
        if not usual.answers():
            missing("no PostgreSQL: neither initdb is here nor does 127.0.0.1:5432 let user postgres in")
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
            "max_connections": 20,
            "shared_buffers": "8MB",
        }
        command = [server, "-D", data, *(part for name, value in options.items() for part in ("-c", f"{name}={value}"))]
        with running(Postgres(port, command)) as started:
            yield started


@contextmanager
def pgbouncer(behind: Postgres, pool_size: int = 2) -> Iterator[Postgres]:
    """A pooler that lends its server connections to one transaction at a time."""
    pooler = program("pgbouncer", "/usr/sbin", "/usr/local/sbin")
    if pooler is None:
        missing("pgbouncer is not installed")
    with scratch() as directory:
        port = free_port()
        (directory / "users").write_text(f'"postgres" "{behind.password}"\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={behind.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {directory}/users\n"
            f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nmax_client_conn = 50\n"
        )
        with running(Postgres(port, [pooler, str(directory / "pgbouncer.ini")])) as started:
            yield started


@contextmanager
def redis() -> Iterator[Redis]:
    server = program("redis-server", "/usr/sbin", "/usr/local/bin") or program("valkey-server", "/usr/sbin")
    if server is None:
        usual = Redis(6379, password=None)
        if not usual.answers():
            missing("no Redis: neither redis-server is here nor does anything answer at 127.0.0.1:6379")
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
        with running(Redis(port, command)) as started:
            yield started
