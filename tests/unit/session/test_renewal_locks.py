# SPDX-License-Identifier: Apache-2.0
"""The locks of a renewal, and the driver under a distributed lock in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from intergiro_provider.exceptions import LockMismatch, StoreUnavailable
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import Abandoned, BankResponse, Renewer, Slot
from intergiro_provider.session.lock_file import LockFile
from intergiro_provider.session.renewal_locks import ATTEMPTS, SHORTER, RenewalLocks
from tests.unit.session.memory import QUICK, MemoryStore, PlainBank

OURS = TokenPair("a", "r", 7, "n", key="k", lock="memory")


class Service:
    """A service that gives one lock at a time, and can be down."""

    def __init__(self) -> None:
        self.holder: MemoryLock | None = None
        self.failures = 0
        self.opened: list[MemoryLock] = []

    def open(self) -> MemoryLock:
        self.opened.append(MemoryLock(self))
        return self.opened[-1]


class MemoryLock:
    fingerprint = "memory"

    def __init__(self, service: Service) -> None:
        self.service = service
        self.tries = self.checks = self.kept = 0
        self.slow = 0.0

    def try_acquire(self) -> bool:
        self.tries += 1
        if self.service.failures:
            self.service.failures -= 1
            raise StoreUnavailable("the service is down")
        self.service.holder = self.service.holder or self
        return self.service.holder is self

    def release(self) -> None:
        if self.service.holder is self:
            self.service.holder = None

    def check(self) -> None:
        self.checks += 1
        time.sleep(self.slow)
        if self.service.holder is not self:
            raise StoreUnavailable("the lock was lost")

    def keep(self) -> None:
        self.kept += 1


@pytest.fixture(autouse=True)
def own_lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def store(request: pytest.FixtureRequest) -> MemoryStore:
    store = MemoryStore(request.node.name)
    store.documents["session"] = OURS
    return store


def shared(store: MemoryStore, bank: PlainBank, open_lock: Callable[[], DistributedLock] | None) -> SharedSession:
    return SharedSession(store, bank, Renewer("k", name="host:1"), QUICK, open_lock)


def nothing() -> TokenPair | None:
    return None


def test_both_locks_are_taken_and_given_back(service: Service) -> None:
    locks = RenewalLocks("both", QUICK, service.open, threading.Event())

    assert locks.acquire(nothing, time.monotonic()) is None
    assert locks.fingerprint == "memory"
    assert service.holder is service.opened[0]
    assert not LockFile("both").try_acquire()
    locks.release()
    assert service.holder is None
    assert LockFile("both").try_acquire()


def test_one_process_of_a_host_at_a_time_asks_the_service(service: Service) -> None:
    first = RenewalLocks("host", QUICK, service.open, threading.Event())
    first.acquire(nothing, time.monotonic())
    looks = iter([None, OURS])

    assert (
        RenewalLocks("host", QUICK, service.open, threading.Event()).acquire(lambda: next(looks), time.monotonic())
        is OURS
    )
    assert len(service.opened) == 1
    first.release()


def test_a_waiter_takes_a_session_instead_of_the_lock(service: Service) -> None:
    service.open().try_acquire()
    looks = iter([None, None, OURS])
    locks = RenewalLocks("waits", QUICK, service.open, threading.Event())

    assert locks.acquire(lambda: next(looks), time.monotonic()) is OURS
    locks.release()
    assert service.holder is service.opened[0]


def test_a_waiter_ends_at_the_deadline_that_began_before_it(service: Service) -> None:
    service.open().try_acquire()
    locks = RenewalLocks("ends", QUICK, service.open, threading.Event())
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match="could not be renewed within"):
        locks.acquire(nothing, began - QUICK.wait + 0.3)
    assert 0.25 < time.monotonic() - began < QUICK.wait / 2


def test_a_waiter_that_is_abandoned_ends(service: Service) -> None:
    service.open().try_acquire()
    abandoned = threading.Event()
    threading.Timer(0.1, abandoned.set).start()

    with pytest.raises(Abandoned):
        RenewalLocks("abandoned", QUICK, service.open, abandoned).acquire(nothing, time.monotonic())


@pytest.mark.parametrize(
    ("distributed", "pauses"), [(False, [1, 1, 1]), (True, [1 / SHORTER, 2 / SHORTER, 4 / SHORTER, 1, 1])]
)
def test_the_first_pauses_under_a_distributed_lock_are_short(
    service: Service, monkeypatch: pytest.MonkeyPatch, distributed: bool, pauses: list[float]
) -> None:
    class Counted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append((timeout or 0.0) / QUICK.poll)
            return False

    waits: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    held = LockFile("pauses")
    assert held.try_acquire()
    locks = RenewalLocks("pauses", QUICK, service.open if distributed else None, Counted())

    assert locks.acquire(lambda: OURS if len(waits) == len(pauses) else None, time.monotonic()) is OURS
    assert waits == pytest.approx(pauses)
    held.release()


@pytest.mark.parametrize("failures", [ATTEMPTS - 1, ATTEMPTS])
def test_a_service_may_fail_for_a_moment(service: Service, failures: int) -> None:
    service.failures = failures
    locks = RenewalLocks("fails", QUICK, service.open, threading.Event())
    if failures < ATTEMPTS:
        assert locks.acquire(nothing, time.monotonic()) is None
    else:
        with pytest.raises(StoreUnavailable, match="the service is down"):
            locks.acquire(nothing, time.monotonic())
    assert service.opened[0].tries == ATTEMPTS
    locks.release()


def test_a_renewal_waits_for_nothing_and_makes_sure_before_each_step_that_counts(
    store: MemoryStore, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = PlainBank()
    bank.valid = "r"
    monkeypatch.delattr(SharedSession.__module__ + "._Run._sleep")
    renewed = shared(store, bank, service.open).renew(OURS, "")

    assert (renewed.how, renewed.pair.lock) == ("refreshed", "memory")
    # The lease, the probe and the refresh.
    assert [lock.checks for lock in service.opened] == [3]
    assert service.holder is None


def test_no_service_is_asked_where_a_session_is_found(store: MemoryStore, service: Service) -> None:
    assert shared(store, PlainBank(), service.open).current() == OURS
    assert service.opened == []


def test_each_renewal_has_a_lock_of_its_own_and_waits_keep_it(store: MemoryStore, service: Service) -> None:
    del store.documents["session"]
    bank = PlainBank()
    session = shared(store, bank, service.open)
    session.renew(session.current(), "")

    assert len(service.opened) == 2
    # Without a session the lease needs its waits, and the lock must last longer than these.
    assert service.opened[0].kept >= 1
    assert (bank.logins, bank.refreshes) == (1, 1)


@pytest.mark.parametrize("slow", [False, True])
def test_a_lock_that_is_lost_or_not_certain_stops_before_the_bank(
    store: MemoryStore, service: Service, slow: bool
) -> None:
    class Watched(MemoryStore):
        def write(self, slot: Slot, document: TokenPair | Lease | LoginHistory) -> None:
            super().write(slot, document)
            if slow:
                service.opened[-1].slow = 2 * impatient.lock_check
            elif slot == "lease":
                service.holder = None

    impatient = replace(QUICK, lock_check=0.05) if slow else QUICK
    watched = Watched(store.name)
    watched.documents.update(store.documents)
    bank = PlainBank()

    with pytest.raises(StoreUnavailable, match="The check that" if slow else "was lost"):
        SharedSession(watched, bank, Renewer("k"), impatient, service.open).renew(OURS, "")
    assert not bank.calling.is_set()
    assert service.holder is None
    assert watched.documents["session"] == OURS


def test_who_has_lost_the_lock_does_not_touch_the_lease(store: MemoryStore, service: Service) -> None:
    class Losing(MemoryStore):
        def read(self, slot: Slot) -> TokenPair | Lease | LoginHistory | None:
            if slot == "lease":
                service.holder = None
            return super().read(slot)

    losing = Losing(store.name)
    losing.documents.update(store.documents, lease=Lease(7, "theirs"))
    bank = PlainBank()

    with pytest.raises(StoreUnavailable, match="was lost"):
        shared(losing, bank, service.open).renew(OURS, "")
    assert losing.documents["lease"] == Lease(7, "theirs")
    assert not bank.calling.is_set()


def test_a_lock_that_is_lost_before_the_login_costs_none(store: MemoryStore, service: Service) -> None:
    class Losing(MemoryStore):
        def write(self, slot: Slot, document: TokenPair | Lease | LoginHistory) -> None:
            super().write(slot, document)
            if slot == "logins":
                service.holder = None

    bank = PlainBank()
    with pytest.raises(StoreUnavailable, match="was lost"):
        shared(Losing(store.name), bank, service.open).current()
    assert bank.logins == 0


def test_the_wait_for_the_lock_counts_towards_the_deadline_of_the_protocol(
    store: MemoryStore, service: Service
) -> None:
    store.documents = {"lease": Lease(0, "somebody else's")}
    brief = replace(QUICK, wait=QUICK.takeover + 0.3)
    theirs = service.open()
    theirs.try_acquire()
    threading.Timer(1.0, theirs.release).start()
    bank = PlainBank()

    # Without the lock, the protocol would have had the time for a takeover.
    with pytest.raises(StoreUnavailable):
        SharedSession(store, bank, Renewer("k"), brief, service.open).current()
    assert bank.logins == 0


def test_a_lock_that_is_lost_during_the_refresh_does_not_lose_the_new_tokens(
    store: MemoryStore, service: Service
) -> None:
    class Losing(PlainBank):
        def refresh(self, refresh_token: str) -> BankResponse:
            service.holder = None
            return super().refresh(refresh_token)

    bank = Losing()
    bank.valid = "r"

    assert shared(store, bank, service.open).renew(OURS, "").stored
    assert bank.refreshes == 1


def test_an_error_of_the_protocol_gives_the_lock_back(store: MemoryStore, service: Service) -> None:
    store.documents["session"] = replace(OURS, lock="another")

    with pytest.raises(LockMismatch):
        shared(store, PlainBank(), service.open).renew(OURS, "")
    assert service.holder is None
    assert LockFile(store.name).try_acquire()
