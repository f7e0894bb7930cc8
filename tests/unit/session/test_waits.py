# SPDX-License-Identifier: Apache-2.0
"""The waits of threads: for each other, for the bank's limit, for a lock file; and their durations."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import pytest

from intergiro_provider.exceptions import BankUnavailable, StoreUnavailable
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Document, Lease, Slot
from intergiro_provider.session.driver import SharedSession, finish_renewals
from intergiro_provider.session.effects import Abandoned, BankResponse, Outcome, Renewer
from intergiro_provider.session.lock_file import LockFile
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


class Limited(PlainBank):
    """Returns 503 to every login, without a pause for other tasks."""

    def log_in(self) -> BankResponse:
        self.calling.set()
        self.meanwhile()
        self.logins += 1
        return BankResponse(Outcome.UNAVAILABLE, 503, retry_after=0.0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list with an entry for each look at the cache: two of each thread that waits for a renewal."""
    entries: list[int] = []
    look = SharedSession._cache
    monkeypatch.setattr(SharedSession, "_cache", lambda session: (entries.append(1), look(session))[1])
    return entries


def test_a_thread_that_waits_for_a_renewal_starts_none_after_the_stop(store: MemoryStore, looks: list[int]) -> None:
    bank = Limited(stop_of_renewals())
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
    wait_until(lambda: len(looks) == 6 and bank.calling.is_set())
    finish_renewals()
    for thread in threads:
        thread.join()

    assert bank.logins == 1
    assert sorted(type(error).__name__ for error in errors) == ["Abandoned", "Abandoned", "BankUnavailable"]
    with pytest.raises(BankUnavailable):  # such as a failure callback of the task
        session.current()
    assert bank.logins == 2


def test_threads_that_wait_for_one_renewal_have_one_deadline(store: MemoryStore) -> None:
    class Lively(MemoryStore):
        """Another process acquires the lease again and again without a result."""

        def read(self, slot: Slot) -> Document | None:
            return Lease(0, f"n{time.monotonic()}") if slot == "lease" else super().read(slot)

    brief = replace(QUICK, wait=QUICK.takeover + QUICK.settle_lease + 0.1)
    session = SharedSession(Lively(store.name), PlainBank(), Renewer("k"), brief)
    errors: list[Exception] = []

    def use() -> None:
        try:
            session.current()
        except StoreUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(12)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(errors) == 12
    assert brief.wait < time.monotonic() - began < 6 * brief.wait, "not one deadline after the other"


def test_what_a_thread_has_waited_for_another_counts(
    store: MemoryStore, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def both_wait() -> None:
        wait_until(lambda: len(looks) == 4)
        time.sleep(0.3)

    bank, waited = Limited(both_wait), list[float]()
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
    assert waited[1] >= 0.3


def test_a_lock_file_that_is_never_released_is_passed_by(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    hanging = LockFile(store.name)
    assert hanging.try_acquire()

    assert shared(store, PlainBank()).current().gen == 1
    assert f"The lock file {hanging.path} was not free for" in caplog.text
    hanging.release()


@pytest.mark.parametrize("held", [True, False])
def test_the_log_names_what_is_waited_for(
    store: MemoryStore, held: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LONG_WAIT", 0.05)
    caplog.set_level(logging.INFO)
    store.documents["lease"] = Lease(0, "another's", release_reason=None if held else "free")

    shared(store, PlainBank()).current()

    assert ("another task is renewing it" in caplog.text) is held
    assert "an interrupted renewal may still store" in caplog.text


def test_a_timing_condition_is_slept_through_when_the_caller_gives_up(store: MemoryStore) -> None:
    """Otherwise the lease would be read before the last rival has written its lease."""
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
