# SPDX-License-Identifier: Apache-2.0
"""Processes that renew one session under a distributed lock: a store in files; real driver, bank client and lock.

A member can be told to hang, stop or kill itself at a given step, which makes rare moments certain.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from intergiro_provider.api.bank import BankClient
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import Document, Lease, Slot, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import Answer, Moment, Outcome, Renewed, Renewer
from intergiro_provider.session.locks import open_lock
from intergiro_provider.session.timings import Timings
from tests.integration.session.services import wait_until

QUICK = Timings(
    call=2.0,
    lease_write=0.5,
    lease_round=0.6,
    settle_lease=0.8,
    lock_check=1.0,
    critical=8.0,
    takeover=15.0,
    settle_session=2.5,
    wait=25.0,
    persist=1.0,
    store=1.0,
    repeat=0.2,
    reserve=1.0,
    poll=0.1,
)
"""The times of production, shrunk together."""

HURRIED = Timings(
    call=0.6,
    lease_write=0.25,
    lease_round=0.3,
    settle_lease=0.4,
    lock_check=0.5,
    critical=2.5,
    takeover=5.5,
    settle_session=0.8,
    wait=10.0,
    persist=0.4,
    store=0.5,
    repeat=0.1,
    reserve=0.3,
    poll=0.1,
)
"""For those that have to wait until somebody counts as dead, or for the deadline."""

# Airflow is imported once, and not by every process.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.integration.session.preloaded"])


class DirectoryStore:
    """The documents of one session in files: a write is seen by all at once, and by none in part.

    :param at: called with the name of each step, such as ``wrote lease``, once it is done.
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


class NotingBank(BankClient):
    """The real client, which also tells of each call before it is made."""

    def __init__(self, settings: ApiSettings, at: Callable[[str], None]) -> None:
        super().__init__(settings, QUICK.call, lambda: settings)
        self._at = at

    def probe(self, access_token: str, refused_path: str) -> Answer:
        answer = super().probe(access_token, refused_path)
        self._at("probed")
        return answer

    def refresh(self, refresh_token: str) -> Answer:
        self._at("refreshing")
        return super().refresh(refresh_token)

    def log_in(self) -> Answer:
        self._at("logging in")
        return super().log_in()

    def time(self, exact: bool) -> Moment:
        return Moment(time.time())


@dataclass(frozen=True)
class Plan:
    """What one member does; may be sent to another process.

    :param url: of the bank.
    :param directory: of the store.
    :param lock: the Airflow connection of the distributed lock, as JSON; "" for none.
    :param host: which lock directory it uses: members of one host share their file lock.
    :param ttl: of the distributed lock, in seconds.
    """

    url: str
    api_key: str
    directory: Path
    name: str
    lock: str = ""
    host: str = "host"
    ttl: float = 2.0
    timings: Timings = field(default=QUICK)

    @property
    def settings(self) -> ApiSettings:
        return ApiSettings(self.url, "3d", "live", self.api_key)

    def store(self, at: Callable[[str], None] = lambda step: None) -> DirectoryStore:
        return DirectoryStore(self.directory, self.name, Codec(self.url, self.api_key), at)

    def open(self) -> DistributedLock:
        """The lock, as a hook finds it."""
        os.environ["AIRFLOW_CONN_LOCK"] = self.lock
        return open_lock("lock", self.name, IntergiroHook.get_connection, self.ttl)

    def shared(self, at: Callable[[str], None] = lambda step: None) -> SharedSession:
        """The session as a member sees it."""
        locks = self.directory / self.host
        locks.mkdir(exist_ok=True)
        tempfile.tempdir = str(locks)
        me = Renewer(self.settings.key, name=f"{self.host}:{os.getpid()}")
        return SharedSession(
            self.store(at), NotingBank(self.settings, at), me, self.timings, self.open if self.lock else None
        )

    def seed(self) -> TokenPair:
        """Store a session that was made under this lock, whose access token is worth nothing any more."""
        answer = BankClient(self.settings, QUICK.call, lambda: self.settings).log_in()
        assert answer.outcome is Outcome.OK
        requests.post(f"{self.url}/_sandbox/expire_access_tokens", timeout=5).raise_for_status()
        lock = self.open().fingerprint if self.lock else None
        session = TokenPair("used-up", answer.refresh_token, 1, "seed", lock, time.time(), key=self.settings.key)
        self.store().write("session", session)
        self.store().write("lease", Lease(0, "seed"))
        return session


class InProcess:
    """A member in a process of its own.

    :param what: runs there; what it returns, or the error that it raises, is :attr:`outcome`.
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

    def hear(self, seconds: float = 30.0) -> Any:
        """The next thing it says; None if it has ended without a word."""
        assert self._ours.poll(seconds), "a member has said nothing"
        try:
            return self._ours.recv()
        except EOFError:
            return None

    def say(self, what: Any) -> None:
        """Tell it something; nobody hears it who has ended."""
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
    """Renew the stored session, or make the first one; send myself a signal when this step is done."""

    def at(done: str) -> None:
        if done == step:
            # This thread itself goes no further, not even while the others are being stopped.
            signal.pthread_kill(threading.get_ident(), number)

    shared = plan.shared(at)
    stored = plan.store().read("session")
    return shared.renew(stored, "/v3/cards") if isinstance(stored, TokenPair) else Renewed(shared.current(), "found")


def hold(plan: Plan, pipe: Any) -> None:
    """Take the lock and keep it until told to let go."""
    lock = plan.open()
    assert lock.try_acquire()
    pipe.send("held")
    pipe.recv()
    lock.release()


def hold_and_fork(plan: Plan, pipe: Any) -> None:
    """Take the lock, and have a child that outlives me; tell who it is."""
    lock = plan.open()
    assert lock.try_acquire()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    pipe.send(child)
    time.sleep(30)


def fork_and_check(plan: Plan, pipe: Any) -> None:
    """Take the lock, and have a child that ends like any other process; then see whether the lock is still mine."""
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
