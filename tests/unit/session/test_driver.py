# SPDX-License-Identifier: Apache-2.0
"""The driver: threads, signals, forks and the cache, around the real protocol with shrunk times."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from intergiro_provider.exceptions import BankUnavailable, StoreUnavailable
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from intergiro_provider.session.driver import SharedSession, finish_renewals
from intergiro_provider.session.effects import Answer, Member, Moment, Outcome, Slot
from intergiro_provider.session.timings import Timings

QUICK = Timings(
    call=0.2,
    lease_write=0.08,
    lease_round=0.1,
    settle_lease=0.12,
    lock_check=0.2,
    critical=1.0,
    takeover=2.4,
    settle_session=0.3,
    wait=6.0,
    persist=0.2,
    store=0.5,
    repeat=0.05,
    reserve=0.1,
    poll=0.02,
)


class MemoryStore:
    """Documents in memory, shared by everything in the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents: dict[Slot, TokenPair | Lease | LoginHistory] = {}
        self.masked: list[TokenPair] = []
        self.threads: set[str] = set()
        self.broken = False

    def read(self, slot: Slot) -> TokenPair | Lease | LoginHistory | None:
        self._touch()
        return self.documents.get(slot)

    def write(self, slot: Slot, document: TokenPair | Lease | LoginHistory) -> None:
        self._touch()
        self.documents[slot] = document

    def is_absent(self, slot: Slot) -> bool:
        return self.read(slot) is None

    def mask(self, session: TokenPair) -> None:
        self.masked.append(session)

    def _touch(self) -> None:
        self.threads.add(threading.current_thread().name)
        if self.broken:
            raise StoreUnavailable("broken")


class PlainBank:
    """A bank that keeps the session rules and answers after `delay` seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.logins = self.refreshes = self.refused = 0
        self.valid = ""
        self.lock = threading.Lock()
        self.calling = threading.Event()

    def _pair(self) -> Answer:
        number = self.logins + self.refreshes
        self.valid = f"r{number}"
        return Answer(Outcome.OK, 200, f"a{number}", self.valid, at=time.time())

    def log_in(self) -> Answer:
        self.calling.set()
        time.sleep(self.delay)
        with self.lock:
            self.logins += 1
            return self._pair()

    def refresh(self, refresh_token: str) -> Answer:
        self.calling.set()
        time.sleep(self.delay)
        with self.lock:
            if refresh_token != self.valid:
                self.refused += 1
                return Answer(Outcome.REFUSED, 400)
            self.refreshes += 1
            return self._pair()

    def probe(self, access_token: str, refused_path: str) -> Answer:
        return Answer(Outcome.REFUSED, 401)

    def time(self, exact: bool) -> Moment:
        return Moment(time.time())

    def has_current_key(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def own_lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(request.node.name)


def shared(store: MemoryStore, bank: PlainBank, key: str = "k") -> SharedSession:
    return SharedSession(store, bank, Member(key, name="host:1"), QUICK)


def test_the_first_use_logs_in_and_stores(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank).current()

    assert (session.access_token, session.refresh_token, session.gen) == ("a1", "r1", 1)
    assert store.documents["session"] == session
    assert store.masked == [session]
    assert bank.logins == 1


def test_a_stored_session_is_used_without_a_call_and_cached(store: MemoryStore) -> None:
    stored = TokenPair("a", "r", 7, "n", key="k")
    store.documents["session"] = stored
    bank = PlainBank()

    assert shared(store, bank).current() == stored
    store.broken = True
    assert shared(store, bank).current() == stored
    assert bank.logins == bank.refreshes == 0


def test_another_key_does_not_get_the_cached_session(store: MemoryStore) -> None:
    store.documents["session"] = TokenPair("a", "r", 7, "n", key="k")
    shared(store, PlainBank()).current()
    store.broken = True

    with pytest.raises(StoreUnavailable):
        shared(store, PlainBank(), key="another").current()


def test_sixteen_threads_make_one_renewal(store: MemoryStore) -> None:
    bank = PlainBank(delay=0.05)
    first = shared(store, bank).current()
    renewed: list[TokenPair] = []
    threads = [
        threading.Thread(target=lambda: renewed.append(shared(store, bank).renew(first, "").pair)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (bank.logins, bank.refreshes, bank.refused) == (1, 1, 0)
    assert {s.identity for s in renewed} == {renewed[0].identity}
    assert len(renewed) == 16
    assert len(store.masked) == 2


def test_every_access_to_the_store_is_in_a_thread_of_its_own(store: MemoryStore) -> None:
    session = shared(store, PlainBank())
    session.renew(session.current(), "")

    assert store.threads == {"intergiro-renewal"}


def test_an_error_in_the_thread_is_the_callers(store: MemoryStore) -> None:
    store.broken = True

    with pytest.raises(StoreUnavailable, match="broken"):
        shared(store, PlainBank()).current()
    store.broken = False
    assert shared(store, PlainBank()).current().gen == 1


class Interrupted(BaseException):
    pass


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


@pytest.mark.usefixtures("alarm")
def test_a_signal_during_a_bank_call_waits_until_the_new_session_is_stored(store: MemoryStore) -> None:
    bank = PlainBank(delay=0.3)
    signal.setitimer(signal.ITIMER_REAL, 0.25)

    with pytest.raises(Interrupted):
        shared(store, bank).current()

    stored = store.documents["session"]
    assert isinstance(stored, TokenPair)
    assert bank.calling.is_set()
    assert (stored.refresh_token, bank.valid) == ("r1", "r1")
    assert shared(store, bank).current().access_token == "a1"
    assert bank.logins == 1


@pytest.mark.usefixtures("alarm")
def test_a_signal_while_waiting_for_somebody_else_ends_the_wait_at_once(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank).current()
    store.documents["lease"] = Lease(session.gen, "somebody else's")
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    began = time.monotonic()

    with pytest.raises(Interrupted):
        shared(store, bank).renew(session, "")

    assert time.monotonic() - began < QUICK.takeover
    assert bank.refreshes == 0
    assert store.documents["lease"] == Lease(session.gen, "somebody else's")


@pytest.mark.usefixtures("alarm")
def test_a_signal_before_the_bank_was_asked_frees_the_lease(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank).current()
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    with pytest.raises(Interrupted):
        shared(store, bank).renew(session, "")

    lease = store.documents["lease"]
    assert isinstance(lease, Lease)
    assert lease.verdict == "free"
    assert bank.refreshes == 0


def test_a_forked_child_has_locks_of_its_own(store: MemoryStore) -> None:
    bank = PlainBank(delay=0.4)
    busy = threading.Thread(target=shared(store, bank).current)
    busy.start()
    assert bank.calling.wait(5)
    child = os.fork()
    if child == 0:
        # The parent's thread holds the lock of the cache and does not exist here.
        store.documents["session"] = TokenPair("from the store", "r", 9, "n", key="k")
        ok = shared(store, bank).current().access_token == "from the store"
        os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    busy.join()

    assert os.waitstatus_to_exitcode(status) == 0


def test_one_line_tells_of_a_renewal_and_no_token_is_in_it(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session = shared(store, PlainBank())
    session.renew(session.current(), "")

    lines = [r.getMessage() for r in caplog.records if r.name == "intergiro_provider.session"]
    assert len(lines) == 2
    assert "generation 1" in lines[0]
    assert "Refreshed" in lines[1]
    assert "generation 2" in lines[1]
    assert not any(token in line for line in lines for token in ("a1", "r1", "a2", "r2"))


def test_a_bank_that_is_down_is_told_to_others_by_a_verdict(store: MemoryStore) -> None:
    class Down(PlainBank):
        def log_in(self) -> Answer:
            self.logins += 1
            return Answer(Outcome.UNAVAILABLE, 503, retry_after=9.0)

    bank = Down()
    with pytest.raises(BankUnavailable) as caught:
        shared(store, bank).current()
    with pytest.raises(BankUnavailable):
        shared(store, bank).current()

    assert caught.value.retry_after == 9.0
    assert bank.logins == 1


def test_who_ends_the_process_can_wait_for_what_others_renew(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank)
    first = session.current()
    bank.delay = 0.3
    bank.calling.clear()
    other = threading.Thread(target=lambda: session.renew(first, ""))
    other.start()
    assert bank.calling.wait(5)

    finish_renewals()

    assert bank.refreshes == 1
    assert store.documents["session"].gen == first.gen + 1  # the rotated token is stored
    other.join()
    finish_renewals()  # nothing left to wait for


def test_a_renewal_that_cannot_begin_is_not_waited_for(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            shared(store, PlainBank()).current()
    waiter = threading.Thread(target=finish_renewals, daemon=True)
    waiter.start()
    waiter.join(2)
    assert not waiter.is_alive()
    assert shared(store, PlainBank()).current().gen == 1


def test_a_log_that_cannot_be_written_costs_no_session(store: MemoryStore) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no space left on device")

    log = logging.getLogger("intergiro_provider.session")
    handler = Full()
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.INFO)
    try:
        assert shared(store, PlainBank()).current().gen == 1
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
