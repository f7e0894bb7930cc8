# SPDX-License-Identifier: Apache-2.0
"""The driver: threads, the cache, the log and errors, around the real protocol with shrunk times."""

from __future__ import annotations

import logging
import threading
import time
import traceback

import pytest

from intergiro_provider.exceptions import BankUnavailable, StoreUnavailable
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import BankResponse, Outcome, Renewer
from tests.unit.session.memory import QUICK, MemoryStore, PlainBank, own_lock_directory, shared, store

__all__ = ["own_lock_directory", "store"]  # fixtures


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
    bank = PlainBank(lambda: time.sleep(0.05))
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
    # Masking communicates with Airflow's supervisor, as reading a Variable does.
    assert store.masked_in == {"intergiro-renewal"}


def test_an_error_in_the_thread_is_the_callers(store: MemoryStore) -> None:
    store.broken = True

    with pytest.raises(StoreUnavailable, match="broken"):
        shared(store, PlainBank()).current()
    store.broken = False
    assert shared(store, PlainBank()).current().gen == 1


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


def test_a_bank_that_is_down_is_known_to_others_by_the_release_reason(store: MemoryStore) -> None:
    class Down(PlainBank):
        def log_in(self) -> BankResponse:
            self.logins += 1
            return BankResponse(Outcome.UNAVAILABLE, 503, retry_after=9.0)

    bank = Down()
    with pytest.raises(BankUnavailable) as caught:
        shared(store, bank).current()
    with pytest.raises(BankUnavailable):
        shared(store, bank).current()

    assert caught.value.retry_after == 9.0
    assert bank.logins == 1


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
    # A thread with the old pair gets the new one. The new one is renewed in its own session.
    assert session.renew(old, "").pair == new
    assert session.current() == new
    assert session.renew(new, "").pair.gen == 2
    assert (new_bank.logins, new_bank.refreshes, len(opened)) == (1, 1, 1)
    lease = store.documents["lease"]
    assert isinstance(lease, Lease)
    assert lease.release_reason == "free"


def test_a_key_that_has_changed_where_no_session_can_be_opened(store: MemoryStore) -> None:
    bank = PlainBank()
    bank.key_is_current = False
    with pytest.raises(StoreUnavailable, match="API key of the connection .* has changed"):
        shared(store, bank).current()
    assert bank.logins == 0


@pytest.mark.parametrize("call", ["probe", "refresh"])
def test_no_frame_of_a_failed_call_shows_a_token(store: MemoryStore, call: str) -> None:
    class Broken(PlainBank):
        def fail(self, *_: object) -> BankResponse:
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
