# SPDX-License-Identifier: Apache-2.0
"""A store and a bank in memory, for renewals in real threads with shrunk times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, LoginHistory, Slot, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import BankResponse, Moment, Outcome, Renewer
from scripts.services import wait_until
from tests.timings import ALONE

QUICK = replace(
    ALONE, settle_lease=0.12, takeover=2.4, settle_session=0.3, store=0.5, repeat=0.05, reserve=0.1, poll=0.02
)


class MemoryStore:
    """Documents in memory, for all threads of the process."""

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
    """A bank with the session rules.

    :param meanwhile: called during each login and refresh, before the response.
    """

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.meanwhile = meanwhile
        self.logins = self.refreshes = self.refused = 0
        self.valid = ""
        self.lock = threading.Lock()
        self.calling = threading.Event()
        self.key_is_current = True

    def _pair(self) -> BankResponse:
        number = self.logins + self.refreshes
        self.valid = f"r{number}"
        return BankResponse(Outcome.OK, 200, f"a{number}", self.valid, at=time.time())

    def log_in(self) -> BankResponse:
        self.calling.set()
        self.meanwhile()
        with self.lock:
            self.logins += 1
            return self._pair()

    def refresh(self, refresh_token: str) -> BankResponse:
        self.calling.set()
        self.meanwhile()
        with self.lock:
            if refresh_token != self.valid:
                self.refused += 1
                return BankResponse(Outcome.REFUSED, 400)
            self.refreshes += 1
            return self._pair()

    def probe(self, access_token: str, refused_path: str) -> BankResponse:
        return BankResponse(Outcome.REFUSED, 401)

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


def stop_of_renewals() -> Callable[[], None]:
    """Return a function that waits until `finish_renewals` has been called after this moment."""
    before = driver._stops
    return lambda: wait_until(lambda: driver._stops > before)


def shared(store: MemoryStore, bank: PlainBank, key: str = "k") -> SharedSession:
    return SharedSession(store, bank, Renewer(key, name="host:1"), QUICK)
