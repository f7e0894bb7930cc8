# SPDX-License-Identifier: Apache-2.0
"""The driver: threads, signals, forks and the cache, around the real protocol with shrunk times."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from intergiro_provider.exceptions import BankUnavailable, StoreUnavailable
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Document, Lease, LoginHistory, Slot, TokenPair
from intergiro_provider.session.driver import SharedSession, finish_renewals
from intergiro_provider.session.effects import Abandoned, Answer, Moment, Outcome, Renewer
from intergiro_provider.session.lock_file import LockFile
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
        self.masked_in: set[str] = set()
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

    def mask(self, pair: TokenPair) -> None:
        self.masked.append(pair)
        self.masked_in.add(threading.current_thread().name)

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
        self.key_is_current = True

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
        return self.key_is_current


@pytest.fixture(autouse=True)
def own_lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(request.node.name)


def shared(store: MemoryStore, bank: PlainBank, key: str = "k") -> SharedSession:
    return SharedSession(store, bank, Renewer(key, name="host:1"), QUICK)


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
    # Masking exchanges messages with Airflow's supervisor, as reading a Variable does.
    assert store.masked_in == {"intergiro-renewal"}


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


class Limited(PlainBank):
    """Answers every login with 503, and lets others try at once."""

    def log_in(self) -> Answer:
        self.calling.set()
        time.sleep(self.delay)
        self.logins += 1
        return Answer(Outcome.UNAVAILABLE, 503, retry_after=0.0)


def test_a_thread_that_waits_for_a_renewal_starts_none_after_the_stop(store: MemoryStore) -> None:
    bank = Limited(delay=0.3)
    session = shared(store, bank)
    errors: list[BaseException] = []

    def use() -> None:
        try:
            session.current()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert bank.calling.wait(5)
    finish_renewals()
    for thread in threads:
        thread.join()

    assert bank.logins == 1
    assert sorted(type(error).__name__ for error in errors) == ["Abandoned", "Abandoned", "BankUnavailable"]
    with pytest.raises(BankUnavailable):  # such as a callback of the task that has failed
        session.current()
    assert bank.logins == 2


def test_threads_that_wait_for_one_renewal_have_one_deadline(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lively(MemoryStore):
        """Another process takes the lease again and again without getting anywhere."""

        def read(self, slot: Slot) -> Document | None:
            return Lease(0, f"n{time.monotonic()}") if slot == "lease" else super().read(slot)

    brief = replace(QUICK, wait=QUICK.takeover + QUICK.settle_lease + 0.1)
    session = SharedSession(Lively(store.name), PlainBank(), Renewer("k"), brief)
    runs: list[driver._Run] = []
    run = driver._Run.run
    monkeypatch.setattr(driver._Run, "run", lambda self: (runs.append(self), run(self))[1])
    errors: list[Exception] = []

    def use() -> None:
        try:
            session.current()
        except StoreUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(errors) == 4
    assert len(runs) == 1


def test_what_a_thread_has_waited_for_another_counts(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, waited = Limited(delay=0.3), list[float]()
    run = driver.Renewal.run
    monkeypatch.setattr(driver.Renewal, "run", lambda self, before: (waited.append(before), run(self, before))[1])
    session = shared(store, bank)

    def use() -> None:
        with pytest.raises(BankUnavailable):
            session.current()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(waited) == 2
    assert waited[1] >= bank.delay


def test_a_lock_file_that_is_never_released_is_passed_by(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    hanging = LockFile(store.name)
    assert hanging.try_acquire()

    assert shared(store, PlainBank()).current().gen == 1
    assert f"The lock file {hanging.path} was not free for" in caplog.text
    hanging.release()


def test_a_key_that_has_changed_is_not_used_for_a_login(store: MemoryStore) -> None:
    bank, new_bank, new_store = PlainBank(), PlainBank(), MemoryStore(store.name + " new")
    opened: list[str] = []

    def reopen() -> SharedSession:
        opened.append("")
        return shared(new_store, new_bank, key="new")

    store.documents["session"] = TokenPair("a", "r", 7, "n", key="k")
    session = SharedSession(store, bank, Renewer("k"), QUICK, reopen=reopen)
    old = session.current()
    bank.key_is_current = False

    new = session.renew(old, "").pair

    assert (bank.logins, bank.refused, new_bank.logins) == (0, 1, 1)
    assert (new, new.key) == (new_store.documents["session"], "new")
    # A thread that had the old pair gets the new one; the new one is renewed in its own session.
    assert session.renew(old, "").pair == new
    assert session.current() == new
    assert session.renew(new, "").pair.gen == 2
    assert (new_bank.logins, new_bank.refreshes, len(opened)) == (1, 1, 1)
    lease = store.documents["lease"]
    assert isinstance(lease, Lease)
    assert lease.verdict == "free"


def test_a_key_that_has_changed_where_no_session_can_be_opened(store: MemoryStore) -> None:
    bank = PlainBank()
    bank.key_is_current = False
    with pytest.raises(StoreUnavailable, match="API key of the connection .* has changed"):
        shared(store, bank).current()
    assert bank.logins == 0


@pytest.mark.parametrize("held", [True, False])
def test_the_log_names_what_is_waited_for(
    store: MemoryStore, held: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LONG_WAIT", 0.05)
    caplog.set_level(logging.INFO)
    store.documents["lease"] = Lease(0, "another's", verdict=None if held else "free")

    shared(store, PlainBank()).current()

    assert ("another task is renewing it" in caplog.text) is held
    assert "an interrupted renewal may still store" in caplog.text


def test_a_timing_condition_is_slept_through_when_the_caller_gives_up(store: MemoryStore) -> None:
    """Else the lease would be read back before the last rival has written his."""
    slept: list[float] = []

    class Watched(MemoryStore):
        def write(self, slot: Slot, document: Document) -> None:
            super().write(slot, document)
            if slot == "lease" and not slept:
                slept.append(time.monotonic())
                for run in tuple(driver._running):
                    run.abandon()

        def read(self, slot: Slot) -> Document | None:
            if slot == "lease" and len(slept) == 1:
                slept.append(time.monotonic())
            return super().read(slot)

    with pytest.raises(Abandoned):
        shared(Watched(store.name), PlainBank()).current()
    assert slept[1] - slept[0] >= QUICK.settle_lease


@pytest.mark.parametrize("call", ["probe", "refresh"])
def test_no_frame_of_a_failed_call_shows_a_token(store: MemoryStore, call: str) -> None:
    class Broken(PlainBank):
        def fail(self, *_: object) -> Answer:
            raise StoreUnavailable("such as a lost lock")

        probe = fail if call == "probe" else PlainBank.probe  # type: ignore[assignment]
        refresh = fail if call == "refresh" else PlainBank.refresh  # type: ignore[assignment]

    pair = TokenPair("secret-access", "secret-refresh", 7, "n", key="k")
    store.documents["session"] = pair
    with pytest.raises(StoreUnavailable) as caught:
        shared(store, Broken()).renew(pair, "")

    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    ours = [frame for frame in frames if "intergiro_provider" in frame.filename]
    assert len(ours) > 3
    assert "secret" not in str([frame.locals for frame in ours])
