# SPDX-License-Identifier: Apache-2.0
"""Processes that renew one session under a distributed lock: a store in files; real driver, bank client and lock.

A member can hang, stop or kill itself at a given step, so that tests can reproduce rare interleavings.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import requests

from intergiro_provider.api.auth_client import AuthClient
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import Document, Lease, Slot, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import BankResponse, Moment, Outcome, Renewed, Renewer
from intergiro_provider.session.locks import open_lock
from intergiro_provider.session.timings import Timings
from tests.integration.session.services import wait_until
from tests.timings import ALONE

QUICK = replace(ALONE, settle_lease=0.8, takeover=15.0, settle_session=2.5, poll=0.1, repeat=0.2, reserve=1.0)
"""For members that only a distributed lock excludes."""

HURRIED = replace(QUICK, settle_lease=0.4, critical=4.5, takeover=5.5, settle_session=0.8, reserve=0.3)
"""Shorter timings for tests that wait for a takeover or for the deadline."""

# Airflow is imported once, before the processes are forked.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.integration.session.preloaded"])


class DirectoryStore:
    """The documents of one session in files, with atomic writes.

    :param at: called with the name of each completed step, such as ``wrote lease``.
    """

    def __init__(self, directory: Path, name: str, codec: Codec, at: Callable[[str], None]) -> None:
        self.name = name
        self._codec = codec
        self._directory = directory
        self._at = at

    def read(self, slot: Slot) -> Document | None:
        try:
            return self._codec.decode(slot, (self._directory / slot).read_text())
        except FileNotFoundError:
            return None

    def write(self, slot: Slot, document: Document) -> None:
        new = self._directory / f"{slot}.{os.getpid()}.{time.monotonic_ns()}"
        new.write_text(self._codec.encode(slot, document))
        new.replace(self._directory / slot)
        self._at(f"wrote {slot}")

    def is_absent(self, slot: Slot) -> bool:
        return self.read(slot) is None

    def mask(self, pair: TokenPair) -> None:
        pass


class NotingBank(AuthClient):
    """The real client, which also reports each call before it is made."""

    def __init__(self, settings: ApiSettings, at: Callable[[str], None]) -> None:
        super().__init__(settings, QUICK.call, lambda: settings)
        self._at = at

    def probe(self, access_token: str, refused_path: str) -> BankResponse:
        response = super().probe(access_token, refused_path)
        self._at("probed")
        return response

    def refresh(self, refresh_token: str) -> BankResponse:
        self._at("refreshing")
        return super().refresh(refresh_token)

    def log_in(self) -> BankResponse:
        self._at("logging in")
        return super().log_in()

    def time(self, exact: bool) -> Moment:
        return Moment(time.time())


@dataclass(frozen=True)
class Plan:
    """The task of one member; can be pickled.

    :param url: the URL of the bank.
    :param directory: the directory of the store.
    :param lock: the Airflow connection of the distributed lock, as JSON; empty: none.
    :param host: the name of the lock directory. Members of one host share a lock file.
    :param ttl: the TTL of the distributed lock, in seconds.
    """

    url: str
    api_key: str
    directory: Path
    name: str
    lock: str = ""
    host: str = "host"
    ttl: float = 60.0
    timings: Timings = field(default=QUICK)

    @property
    def settings(self) -> ApiSettings:
        return ApiSettings(self.url, "3d", "live", self.api_key)

    def store(self, at: Callable[[str], None] = lambda step: None) -> DirectoryStore:
        return DirectoryStore(self.directory, self.name, Codec(self.url, self.api_key), at)

    def open(self) -> DistributedLock:
        """Return the lock, as a hook creates it."""
        os.environ["AIRFLOW_CONN_LOCK"] = self.lock
        return open_lock("lock", self.name, IntergiroHook.get_connection, self.ttl)

    def shared(self, at: Callable[[str], None] = lambda step: None) -> SharedSession:
        """Return the session of a member."""
        locks = self.directory / self.host
        locks.mkdir(exist_ok=True)
        tempfile.tempdir = str(locks)
        me = Renewer(self.settings.key, name=f"{self.host}:{os.getpid()}")
        return SharedSession(
            self.store(at), NotingBank(self.settings, at), me, self.timings, self.open if self.lock else None
        )

    def seed(self) -> TokenPair:
        """Store a session that was created under this lock, with an expired access token."""
        response = AuthClient(self.settings, QUICK.call, lambda: self.settings).log_in()
        assert response.outcome is Outcome.OK
        requests.post(f"{self.url}/_sandbox/expire_access_tokens", timeout=60).raise_for_status()
        lock = self.open().fingerprint if self.lock else None
        session = TokenPair("used-up", response.refresh_token, 1, "seed", lock, time.time(), key=self.settings.key)
        self.store().write("session", session)
        self.store().write("lease", Lease(0, "seed"))
        return session


class InProcess:
    """A member in its own process.

    :param what: the function to run. :attr:`outcome` is its result or its error.
    """

    def __init__(self, what: Callable[..., Any], *args: Any) -> None:
        self._ours, theirs = processes.Pipe()
        self._process = processes.Process(target=_run, args=(theirs, what, *args), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def hear(self, seconds: float = 120.0) -> Any:
        """Return the next message of the process; None if it has ended without one."""
        assert self._ours.poll(seconds), "a member has said nothing"
        try:
            return self._ours.recv()
        except EOFError:
            return None

    def say(self, what: Any) -> None:
        """Send a message to the process, if it has not ended."""
        with contextlib.suppress(BrokenPipeError):
            self._ours.send(what)

    def has_said(self) -> bool:
        return self._ours.poll(0)

    def is_stopped(self) -> bool:
        return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def wait_until_stopped(self) -> None:
        wait_until(self.is_stopped)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join(10)


@contextmanager
def member(what: Callable[..., Any], *args: Any) -> Iterator[InProcess]:
    process = InProcess(what, *args)
    try:
        yield process
    finally:
        process.end()


def _run(pipe: Any, what: Callable[..., Any], *args: Any) -> None:
    try:
        said = what(*args, pipe)
    except Exception as error:
        said = error
    pipe.send(said)


def renew(plan: Plan, step: str, number: int, pipe: Any) -> Renewed:
    """Renew the stored session, or create the first one. After this step, send a signal to the own process."""

    def at(done: str) -> None:
        if done == step:
            # This thread does not continue while the signal stops the other threads.
            signal.pthread_kill(threading.get_ident(), number)

    shared = plan.shared(at)
    stored = plan.store().read("session")
    return shared.renew(stored, "/v3/cards") if isinstance(stored, TokenPair) else Renewed(shared.current(), "found")


def hold(plan: Plan, pipe: Any) -> None:
    """Acquire the lock, and hold it until a message arrives."""
    lock = plan.open()
    assert lock.try_acquire()
    pipe.send("held")
    pipe.recv()
    lock.release()


def hold_and_fork(plan: Plan, pipe: Any) -> None:
    """Acquire the lock, and fork a child that outlives this process. Report its process id."""
    lock = plan.open()
    assert lock.try_acquire()
    child = os.fork()
    if child == 0:
        time.sleep(300)
        os._exit(0)
    pipe.send(child)
    time.sleep(300)


def fork_and_check(plan: Plan, pipe: Any) -> None:
    """Acquire the lock, and fork a child that exits normally. Then check that this process still holds the lock."""
    lock = plan.open()
    assert lock.try_acquire()
    child = os.fork()
    if child == 0:
        lock.release()
        del lock
        raise SystemExit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lock.check()
    lock.release()


def plan_for(bank: Sandbox, directory: Path, lock: str = "", **changes: Any) -> Plan:
    return Plan(bank.url, bank.api_key, directory, f"intergiro_session_{directory.name}", lock, **changes)
