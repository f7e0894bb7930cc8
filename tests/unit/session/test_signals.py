# SPDX-License-Identifier: Apache-2.0
"""Signals, forks and the end of the process while a thread renews."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from intergiro_provider.session import driver
from intergiro_provider.session.documents import Document, Lease, Slot, TokenPair
from intergiro_provider.session.driver import SharedSession, finish_renewals
from intergiro_provider.session.effects import Renewer
from scripts.services import wait_until
from tests.unit.session.memory import (
    QUICK,
    MemoryStore,
    PlainBank,
    own_lock_directory,
    shared,
    stop_of_renewals,
    store,
)

__all__ = ["own_lock_directory", "store"]  # fixtures


class Interrupted(BaseException):
    pass


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise Interrupted

    former = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, former)


def ring() -> None:
    """Send the signal from a renewal's thread, and wait until the renewal has been abandoned for it."""
    os.kill(os.getpid(), signal.SIGALRM)
    wait_until(lambda: all(run._renewal is not None and run._renewal._is_abandoned() for run in driver._running))


class Ringing(MemoryStore):
    """Sends the signal after the first write of a lease, or after the first look at another's lease."""

    rang = False

    def read(self, slot: Slot) -> Document | None:
        document = super().read(slot)
        self._ring(slot == "lease" and document is not None)
        return document

    def write(self, slot: Slot, document: Document) -> None:
        super().write(slot, document)
        self._ring(slot == "lease")

    def _ring(self, now: bool) -> None:
        if now and not self.rang:
            self.rang = True
            ring()


@pytest.mark.usefixtures("alarm")
def test_a_signal_during_a_bank_call_waits_until_the_new_session_is_stored(store: MemoryStore) -> None:
    bank = PlainBank(ring)

    with pytest.raises(Interrupted):
        shared(store, bank).current()

    stored = store.documents["session"]
    assert isinstance(stored, TokenPair)
    assert bank.calling.is_set()
    assert (stored.refresh_token, bank.valid) == ("r1", "r1")
    bank.meanwhile = lambda: None
    assert shared(store, bank).current().access_token == "a1"
    assert bank.logins == 1


@pytest.mark.usefixtures("alarm")
def test_a_signal_while_waiting_for_somebody_else_ends_the_wait_at_once(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank).current()
    store.documents["lease"] = Lease(session.gen, "somebody else's")
    ringing = Ringing(store.name)
    ringing.documents = store.documents
    timings = replace(QUICK, takeover=200.0)
    began = time.monotonic()

    with pytest.raises(Interrupted):
        SharedSession(ringing, bank, Renewer("k"), timings).renew(session, "")

    assert time.monotonic() - began < timings.takeover / 2
    assert bank.refreshes == 0
    assert store.documents["lease"] == Lease(session.gen, "somebody else's")


@pytest.mark.usefixtures("alarm")
def test_a_signal_before_the_bank_was_asked_frees_the_lease(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank).current()
    ringing = Ringing(store.name)
    ringing.documents = store.documents
    del store.documents["lease"]

    with pytest.raises(Interrupted):
        shared(ringing, bank).renew(session, "")

    lease = store.documents["lease"]
    assert isinstance(lease, Lease)
    assert lease.release_reason == "free"
    assert bank.refreshes == 0


def test_a_signal_while_the_renewals_thread_starts(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = PlainBank(lambda: time.sleep(0.3))
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        assert bank.calling.wait(60)
        raise Interrupted

    with monkeypatch.context() as signalled, pytest.raises(Interrupted):
        signalled.setattr(threading.Thread, "start", interrupted)
        shared(store, bank).current()

    assert isinstance(store.documents["session"], TokenPair)
    assert not driver._running


def test_a_signal_before_the_renewals_thread_starts(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[threading.Thread] = []
    bank = PlainBank()

    def interrupted(thread: threading.Thread) -> None:
        late.append(thread)
        raise Interrupted

    with monkeypatch.context() as signalled, pytest.raises(Interrupted):
        signalled.setattr(threading.Thread, "start", interrupted)
        shared(store, bank).current()
    late[0].start()
    late[0].join(60)

    assert bank.logins == 0
    assert not driver._running


def test_a_forked_child_has_locks_of_its_own(store: MemoryStore) -> None:
    forked = threading.Event()
    bank = PlainBank(lambda: forked.wait(60))
    busy = threading.Thread(target=shared(store, bank).current)
    busy.start()
    assert bank.calling.wait(60)
    child = os.fork()
    if child == 0:
        # The parent's thread, which does not exist here, holds the lock of the cache.
        store.documents["session"] = TokenPair("from the store", "r", 9, "n", key="k")
        ok = shared(store, bank).current().access_token == "from the store"
        os._exit(0 if ok else 1)
    _, status = os.waitpid(child, 0)
    forked.set()
    busy.join()

    assert os.waitstatus_to_exitcode(status) == 0


def test_who_ends_the_process_can_wait_for_what_others_renew(store: MemoryStore) -> None:
    bank = PlainBank()
    session = shared(store, bank)
    first = session.current()
    bank.meanwhile = stop_of_renewals()
    bank.calling.clear()
    other = threading.Thread(target=lambda: session.renew(first, ""))
    other.start()
    assert bank.calling.wait(60)

    finish_renewals()

    assert bank.refreshes == 1
    assert store.documents["session"].gen == first.gen + 1  # the rotated token is stored
    other.join()
    finish_renewals()  # there is no renewal to wait for


def test_a_renewal_that_cannot_begin_is_not_waited_for(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            shared(store, PlainBank()).current()
    waiter = threading.Thread(target=finish_renewals, daemon=True)
    waiter.start()
    waiter.join(60)
    assert not waiter.is_alive()
    assert shared(store, PlainBank()).current().gen == 1
