# SPDX-License-Identifier: Apache-2.0
"""IntergiroEventTrigger, with a bank over real sockets and a real session."""

from __future__ import annotations

import json
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from intergiro_provider.triggers import polling
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger
from tests.integration.pulls import Said, bank, said, shared_bank
from tests.integration.triggers.driving import Clock, clock, nothing

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(version("apache-airflow").startswith("2."), reason="event-driven DAGs are Airflow 3's"),
]

__all__ = ["bank", "clock", "said", "shared_bank"]  # fixtures

EVENT_DELAY = IntergiroEventTrigger.EVENT_DELAY
INTERVAL = 60.0


class Store:
    """Replaces the asset's state store, which exists only in a triggerer. The system tests use the real one."""

    def __init__(self, several: bool = False) -> None:
        self.values: dict[str, str] = {}
        self.several, self.broken = several, False

    def _look(self) -> None:
        if self.several:
            raise ValueError("Task has 2 concrete inlets and outlets")
        if self.broken:
            raise RuntimeError("the API server does not answer")

    def get(self, key: str) -> Any:
        self._look()
        return json.loads(self.values[key]) if key in self.values else None

    def set(self, key: str, value: Any) -> None:
        self._look()
        self.values[key] = json.dumps(value)


def watching(store: Store | None = None, **arguments: Any) -> IntergiroEventTrigger:
    """Return a new trigger, as after the start of a triggerer."""
    trigger = IntergiroEventTrigger(**{"endpoint": "transactions", "poll_interval": INTERVAL, **arguments})
    trigger.asset_state_store = store  # type: ignore[assignment]
    return trigger


def ids(events: list[Any]) -> list[list[str]]:
    """Return the ids of each event, sorted: records of one instant have no order."""
    return [sorted(event["ids"]) for event in events]


class Booking:
    """Steps that add these numbers of transactions, and the ids of the transactions."""

    def __init__(self, bank: Sandbox) -> None:
        self._bank = bank
        self.ids: list[list[str]] = []

    def __call__(self, count: int = 1) -> Any:
        return lambda: self.ids.append(sorted(self._bank.add_transactions(count, reference="Rent of Åsa Öberg")))


@pytest.fixture
def book(bank: Sandbox) -> Booking:
    return Booking(bank)


def test_new_records_are_told_once_from_the_start_on(bank: Sandbox, clock: Clock, book: Booking) -> None:
    events = clock.drive(watching(), book(), nothing, nothing, book(3), nothing, nothing)
    assert ids(events) == book.ids
    assert clock.slept == [INTERVAL, EVENT_DELAY, INTERVAL, INTERVAL, EVENT_DELAY, INTERVAL, INTERVAL]
    assert bank.counters().by_path["GET /v3/transactions"] == 5, "one request a poll"


def test_an_event_holds_ids_and_times_and_nothing_of_anybodys_account(
    bank: Sandbox, clock: Clock, book: Booking
) -> None:
    [event] = clock.drive(watching(endpoint="/v3/transactions?x=1"), book(2), nothing)
    booked = [json.loads(record) for record in bank.records()[-2:]]
    assert event == {
        "endpoint": "/v3/transactions",
        "ids": [record["id"] for record in booked],
        "more": False,
        "created_from": booked[0]["created_at"],
        "created_to": event["created_to"],
    }
    inside = [json.loads(r)["id"] for r in bank.records("/v3/transactions", event["created_from"], event["created_to"])]
    assert inside == event["ids"]


def test_a_burst_larger_than_a_page(bank: Sandbox, clock: Clock, book: Booking) -> None:
    [event] = clock.drive(watching(), book(250), nothing, nothing)
    assert event["more"]
    assert len(event["ids"]) == 100
    assert set(event["ids"]) < set(book.ids[0])
    inside = [json.loads(r)["id"] for r in bank.records("/v3/transactions", event["created_from"], event["created_to"])]
    assert set(book.ids[0]) <= set(inside)


def test_filters(bank: Sandbox, clock: Clock) -> None:
    [pending] = bank.add_transactions(status="pending")
    trigger = watching(query={"statuses": "completed"})
    events = clock.drive(
        trigger, lambda: bank.add_transactions(status="pending"), nothing,
        lambda: bank.change_transactions([pending], status="completed"), nothing, nothing,
    )  # fmt: skip
    assert ids(events) == [[pending]], "what has come to satisfy the filter is new there"


def test_a_list_without_filters_of_time(bank: Sandbox, clock: Clock) -> None:
    assert clock.drive(watching(endpoint="individuals"), nothing, nothing) == []
    assert bank.requests()[-1]["query"] == "sort_by=created_at&sort_type=DESC&limit=100"


class TestThePosition:
    def test_a_restart_neither_loses_nor_repeats(self, bank: Sandbox, clock: Clock, book: Booking) -> None:
        store = Store()
        told = clock.drive(watching(store), book(), nothing, nothing)
        book()()  # while the triggerer is down
        told += clock.drive(watching(store), nothing, nothing)
        told += clock.drive(watching(store), nothing, book(), nothing)
        assert ids(told) == book.ids

    def test_what_comes_before_the_first_event_is_not_lost_either(
        self, bank: Sandbox, clock: Clock, book: Booking
    ) -> None:
        store = Store()
        assert clock.drive(watching(store)) == []
        book()()
        assert ids(clock.drive(watching(store), nothing)) == book.ids

    def test_a_crash_before_airflow_has_stored_the_event_repeats_that_one(
        self, bank: Sandbox, clock: Clock, book: Booking
    ) -> None:
        store = Store()
        before = clock.drive(watching(store), book(), nothing, nothing, book())  # the last sleep is the hand-over
        assert clock.slept[-1] == EVENT_DELAY
        after = clock.drive(watching(store), nothing, nothing)
        assert ids(before) == book.ids
        assert ids(after) == book.ids[-1:]

    def test_without_a_store_a_restart_starts_from_now(self, bank: Sandbox, clock: Clock, book: Booking) -> None:
        clock.drive(watching(), book(), nothing)
        book()()
        assert clock.drive(watching(), nothing) == []

    def test_a_store_that_cannot_be_read_is_not_taken_for_an_empty_one(
        self, bank: Sandbox, clock: Clock, book: Booking
    ) -> None:
        store = Store()
        clock.drive(watching(store))
        book()()
        store.broken = True
        events = clock.drive(watching(store), nothing, lambda: setattr(store, "broken", False), nothing)
        assert ids(events) == book.ids
        assert clock.slept[0] <= polling.FIRST_DELAY * 1.2

    def test_a_store_that_cannot_be_written_repeats_nothing(self, bank: Sandbox, clock: Clock, book: Booking) -> None:
        store = Store()
        break_it, mend_it = lambda: setattr(store, "broken", True), lambda: setattr(store, "broken", False)
        told = clock.drive(watching(store), book(), break_it, nothing, nothing, mend_it, nothing)
        told += clock.drive(watching(store), nothing)
        assert ids(told) == book.ids

    def test_something_else_in_the_store(self, bank: Sandbox, clock: Clock, book: Booking, said: Said) -> None:
        store = Store()
        store.values[watching()._key()] = '{"ids": "?"}'
        assert ids(clock.drive(watching(store), book(), nothing)) == book.ids
        assert "no valid position" in said()

    def test_a_trigger_that_watches_several_assets_goes_without(
        self, bank: Sandbox, clock: Clock, book: Booking, said: Said
    ) -> None:
        assert ids(clock.drive(watching(Store(several=True)), book(), nothing, book(), nothing)) == book.ids
        assert said().count("watches several assets") == 1

    def test_it_holds_ids_and_times_only_and_little_of_them(self, bank: Sandbox, clock: Clock, book: Booking) -> None:
        store = Store()
        clock.drive(watching(store), book(300), nothing)
        [stored] = store.values.values()
        assert set(json.loads(stored)) == {"ids", "newest", "oldest"}
        assert len(json.loads(stored)["ids"]) == 100
        assert len(stored) < 8192
        assert "Öberg" not in json.dumps(json.loads(stored), ensure_ascii=False)


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "fault"),
        [("status", {"status": 503}), ("drop", {}), ("garbled", {"how": "html"}), ("empty_page", {})],
    )
    def test_passing_ones_end_nothing_and_lose_nothing(
        self, bank: Sandbox, clock: Clock, book: Booking, kind: str, fault: dict[str, Any]
    ) -> None:
        def break_it() -> None:
            bank.fault(kind, path="/v3/transactions", **fault)
            book(2)()

        events = clock.drive(watching(), break_it, *[nothing] * 11, bank.clear_faults, nothing, nothing)
        assert ids(events) == book.ids
        assert all(2 * former <= later * 1.2 for former, later in pairwise(clock.slept[1:7]))
        assert max(clock.slept) <= polling.LONGEST_DELAY * 1.2
        assert clock.slept[-3:] == [EVENT_DELAY, INTERVAL, INTERVAL]

    def test_final_errors_are_logged_and_polled_again_much_later(
        self, bank: Sandbox, clock: Clock, book: Booking, said: Said
    ) -> None:
        """The triggerer would restart an AssetWatcher's trigger that ends, again and again."""
        bank.fault("status", path="/v3/transactions", status=403)

        def fix() -> None:
            bank.clear_faults()

        events = clock.drive(watching(), nothing, fix, book(), nothing)
        assert ids(events) == book.ids
        assert clock.slept[:2] == [IntergiroEventTrigger.FINAL_ERROR_DELAY] * 2
        assert "Until you fix this, the trigger starts no DAG" in said()

    def test_a_wrong_key_is_no_storm_of_logins(
        self, bank: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({**json.loads(bank.connection()), "password": "wrong"}))
        assert clock.drive(watching(intergiro_conn_id="wrong")) == []
        assert clock.slept == [IntergiroEventTrigger.FINAL_ERROR_DELAY]
        assert bank.counters().login_refused == 1
