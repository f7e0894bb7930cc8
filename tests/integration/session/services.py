# SPDX-License-Identifier: Apache-2.0
"""The servers of `scripts.services`, and the faults that tests cause there.

If a server is not ours, tests that would stop it are skipped. If there is none, tests are skipped, or fail if `CI` is
set.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import psutil
import pytest

from scripts import services
from scripts.processes import free_port
from scripts.services import PASSWORD, Missing, program, running, scratch, wait_until

__all__ = ["PASSWORD", "Postgres", "Redis", "free_port", "pgbouncer", "postgres", "redis", "wait_until"]


def missing(reason: str) -> NoReturn:
    """Skip the test; with CI=true, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Fragile(services.Server):
    """A server that can be stopped."""

    @contextmanager
    def down(self) -> Iterator[None]:
        """Stop the server for the block. After a restart it has no locks."""
        if not self.own:
            pytest.skip("this server is not ours to stop")
        self.stop(signal.SIGQUIT if isinstance(self, Postgres) else signal.SIGKILL)
        try:
            yield
        finally:
            self.start()


class Postgres(services.Postgres, Fragile):
    def holders(self, name: str) -> list[int]:
        """Return the ids of the server processes that hold the lock of this name."""
        from intergiro_provider.session.postgres_lock import key_of

        high, low = divmod(key_of(name) % 2**64, 2**32)
        rows = self.ask(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s",
            high,
            low,
        )
        return [pid for (pid,) in rows]

    def take_away(self, name: str) -> None:
        """Terminate the database session that holds the lock."""
        pids = self.holders(name)
        assert len(pids) == 1
        self.ask("SELECT pg_terminate_backend(%s)", pids[0])
        wait_until(lambda: not self.holders(name))

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """Stop the server process that holds the lock for the block, so that it does not respond."""
        if not self.own:
            pytest.skip("this server is not ours to stop")
        holder = psutil.Process(self.holders(name)[0])
        holder.suspend()
        try:
            yield
        finally:
            holder.resume()


class Redis(services.Redis, Fragile):
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


@contextmanager
def postgres() -> Iterator[Postgres]:
    try:
        with services.postgres(Postgres) as server:
            yield server
    except Missing as reason:
        missing(str(reason))


@contextmanager
def pgbouncer(behind: Postgres, pool_size: int = 2) -> Iterator[Postgres]:
    """Start a pooler that assigns a server connection for one transaction at a time."""
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
    try:
        with services.redis(Redis) as server:
            yield server
    except Missing as reason:
        missing(str(reason))
