# SPDX-License-Identifier: Apache-2.0
"""The data: the same for the same seed, in the bank's format, in one total order."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.sandbox.collection import Collection, iso
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.ids import Ids
from intergiro_provider.sandbox.settings import Settings
from intergiro_provider.sandbox.transactions import OPEN, STATUSES, Spread, Transactions

NOW = datetime(2025, 11, 24, 13, 30, tzinfo=UTC)


ACCOUNTS = [{"id": "one", "currency": "EUR"}, {"id": "two", "currency": "SEK"}, {"id": "three", "currency": "EUR"}]
DAY = 86_400.0


def transactions(count: int = 2000, seed: int = 1, settle_after: float = 0.0, **spread: Any) -> Transactions:
    made = Spread(count, NOW, spread.pop("days", 30.0), **spread)
    return Transactions("v3", seed, ACCOUNTS, made, cached=1000, settle_after=settle_after)


def rows(collection: Collection) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in collection.rows(range(len(collection)))]


@given(st.integers(0, 2**31), st.integers(0, 2**40))
def test_ids_can_be_read_back(serial: int, salt: int) -> None:
    ids = Ids(salt)
    assert ids.serial(ids.of(serial)) == serial


@given(st.text(max_size=40) | st.from_regex(r"[0-9A-Za-z]{10}", fullmatch=True) | st.uuids(version=4).map(str))
def test_any_text_that_is_no_id_is_told_apart(text: str) -> None:
    serial = Ids(7).serial(text)
    assert serial is None or Ids(7).of(serial) == text


def test_ids_of_both_kinds_without_a_pattern() -> None:
    made = [Ids(3).of(serial) for serial in range(3000)]
    assert len(set(made)) == 3000
    assert {len(one) for one in made} == {10, 36}
    assert Counter(one[0] for one in made if len(one) == 36).keys() == set("0123456789abcdef")
    assert made != sorted(made)
    assert not set(made) & {Ids(4).of(serial) for serial in range(3000)}


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = transactions(), transactions()
    everything = range(len(one))
    # Requested in another order, and more than the cache can hold.
    backwards = other.rows(reversed(everything))[::-1]
    assert one.rows(everything) == backwards == other.rows(everything)
    assert len(one._cache) == 1000
    assert one.rows(everything) != transactions(seed=2).rows(everything)


def test_the_small_lists_are_the_same_for_the_same_seed_too() -> None:
    one, other = (Data("v3", Settings(seed=5), NOW) for _ in range(2))
    for name in ("accounts", "individuals", "cards"):
        assert rows(getattr(one, name)) == rows(getattr(other, name))
        assert rows(getattr(one, name)) != rows(getattr(Data("v3", Settings(seed=6), NOW), name))
    assert rows(one.accounts) != rows(Data("v1", Settings(seed=5), NOW).accounts)


def test_transactions_are_in_the_order_of_moment_and_id() -> None:
    found = rows(transactions())
    keys = [(row["created_at"], row["id"]) for row in found]
    assert keys == sorted(set(keys))
    ties = Counter(row["created_at"] for row in found)
    assert max(ties.values()) == 4
    assert sum(count > 1 for count in ties.values()) > 100


def test_transactions_have_a_banks_shape() -> None:
    found = rows(transactions())
    assert {tuple(row["counterparty"]["account_details"]) for row in found} == {("type", "iban")}
    assert {row["status"] for row in found} == set(STATUSES) >= {"pending", "pending_approval"}
    assert any(abs(row["amount"]) > 2**53 for row in found)
    assert any(row["amount"] < 0 for row in found)
    assert all(isinstance(row["amount"], int) for row in found)
    rates = {row["exchange_rate"] for row in found}
    assert None in rates
    assert len(rates) > 1
    assert any("risk" in row for row in found)
    assert not all("risk" in row for row in found)
    assert any(row["counterparty"]["account_id"] is None for row in found)
    assert any(not row["counterparty"]["name"].isascii() for row in found)
    raw = b"".join(transactions().rows(range(2000)))
    for spelling in (rb"\u00c4", rb"\/", rb"\"", rb"\n", rb"\ud83d\ude00", "北京".encode(), b"10.4500", b"4.2e-2"):
        assert spelling in raw
    assert b"\n" not in raw


def test_there_are_transactions_on_each_day_up_to_now() -> None:
    found = rows(transactions())
    days = {row["created_at"][:10] for row in found}
    wanted = {(NOW - timedelta(days=back)).date().isoformat() for back in range(30)}
    assert wanted <= days
    assert all(iso(round((NOW - timedelta(days=30)).timestamp() * 1000)) <= row["created_at"] for row in found)
    assert found[-1]["created_at"] < "2025-11-24T13:30:00.000Z"


@pytest.mark.parametrize("count", [0, 1, 9, 11])
def test_few_transactions(count: int) -> None:
    assert len(rows(transactions(count))) == count


def test_what_is_derived_agrees_with_what_is_told() -> None:
    made = transactions(500)
    for serial in range(500):
        row = json.loads(made.raw(serial))
        assert made.serial(row["id"]) == serial
        assert made.facet(serial) == (row["account_id"], row["status"], row["correlation_id"])
        assert iso(made.updated(serial)) == row["updated_at"] >= row["created_at"]
    assert made.serial(made.id(500)) is None


def test_a_booked_transaction_lies_where_it_belongs() -> None:
    made = transactions(100)
    moments = sorted(made.created)
    fields = {"account_id": "one", "status": "pending", "amount": 1}
    for moment in (moments[0] - 1, moments[50], moments[50], moments[-1] + 1, moments[-1] + 1):
        for booked in made.add([fields, fields], moment):
            position = made.place[made.serial(booked["id"]) or 0]
            assert json.loads(made.rows([position])[0]) == booked
    assert len(made) == 110
    found = rows(made)
    assert found == sorted(found, key=lambda row: (row["created_at"], row["id"]))
    for position, serial in enumerate(made.order):
        assert made.place[serial] == position


def test_a_changed_transaction() -> None:
    made = transactions(100)
    before = json.loads(made.raw(7))
    made.change(7, {"status": "returned"}, 1_764_000_000_000)
    after = json.loads(made.raw(7))
    assert after == {**before, "status": "returned", "updated_at": iso(1_764_000_000_000)}
    assert made.facet(7)[1] == "returned"
    assert made.updated(7) == 1_764_000_000_000


def test_individuals_cards_and_events_hang_together() -> None:
    data = Data("v3", Settings(), NOW)
    individuals = {row["id"]: row for row in rows(data.individuals)}
    accounts = {row["id"] for row in rows(data.accounts)}
    for card in rows(data.cards):
        assert card["individual_id"] in individuals
        assert card["account_id"] in accounts
    for owner, row in individuals.items():
        events = data.events(owner)
        assert events is not None
        names = [event["name"] for event in rows(events)]
        assert names[0] == "IndividualOnboardingRequested"
        assert ("IndividualBlocked" in names) is (row["status"] == "blocked")
    assert data.events("nobody") is None
    assert data.individual_payment_methods("nobody") is None
    assert data.guest_payment_methods("unknown-guest") is None
    assert data.bank_details("nothing") is None
    assert {row["account_id"] for row in rows(data.transactions)} <= accounts


def sums(found: list[dict[str, Any]]) -> dict[str, int]:
    """Return the sums of the booked transactions, by account."""
    total: Counter[str] = Counter()
    for row in found:
        total[row["account_id"]] += row["amount"] if row["status"] == "completed" else 0
    return total


def balances(made: Transactions) -> dict[str, int]:
    return {account["id"]: made.balance(account["id"]) for account in ACCOUNTS}


def test_a_balance_is_the_sum_of_the_booked_transactions_at_any_time() -> None:
    made = transactions(settle_after=DAY)
    seen = [balances(made)]
    assert seen[0] == sums(rows(made))
    ids = [row["id"] for row in made.add([{"account_id": "one", "status": "pending", "amount": -70}] * 2, 1)]
    for hours in (0, 16, 24, 1000):
        made.settle(hours * 3_600_000)
        seen.append(balances(made))
        assert seen[-1] == sums(rows(made))
    assert seen[0] == seen[1] != seen[2] != seen[3] == seen[4]
    made.change(made.serial(ids[0]) or 0, {"status": "returned"}, 1)
    made.change(3, {"amount": 5, "status": "completed"}, 1)
    assert balances(made) == sums(rows(made))
    assert balances(made)["one"] - seen[-1]["one"] >= 70


def test_the_balance_does_not_depend_on_when_it_was_first_asked_for() -> None:
    one, other = transactions(settle_after=DAY), transactions(settle_after=DAY)
    assert balances(one)
    for made in (one, other):
        made.add([{"account_id": "two", "status": "pending", "amount": 9}], 1)
        made.settle(DAY * 1000)
    assert balances(one) == balances(other)


def test_pending_transactions_complete_when_they_are_due() -> None:
    made = transactions(settle_after=DAY)
    end = round(NOW.timestamp() * 1000)
    for elapsed in (0, 3_600_000, 30 * 3_600_000):
        made.settle(elapsed)
        for row in rows(made):
            due = datetime.fromisoformat(row["created_at"]) + timedelta(days=1)
            if row["status"] in OPEN:
                assert due.timestamp() * 1000 > end + elapsed
    after = rows(made)
    assert not {row["status"] for row in after} & OPEN
    before = {row["id"]: row for row in rows(transactions())}
    for row in after:
        former = before[row["id"]]
        assert (row["created_at"], row["amount"]) == (former["created_at"], former["amount"])
        if former["status"] in OPEN:
            due = datetime.fromisoformat(row["created_at"]) + timedelta(days=1)
            assert (row["status"], datetime.fromisoformat(row["updated_at"])) == ("completed", due)
        else:
            assert row == former


def test_data_made_later_are_those_of_the_present_moment() -> None:
    first, later = (Data("v3", Settings(settle_after=DAY), NOW) for _ in range(2))
    before = rows(first.transactions)
    for data in (first, later):
        data.settle(DAY)
    assert rows(first.transactions) == rows(later.transactions) != before


def test_without_settle_after_nothing_changes_by_itself() -> None:
    made = transactions()
    before = rows(made)
    [added] = made.add([{"account_id": "one", "status": "pending", "amount": 1}], round(NOW.timestamp() * 1000))
    made.settle(1000 * DAY * 1000)
    assert rows(made) == [*before, added]
    assert made.settle_all(1_764_000_000_000) == 1
    assert rows(made) == [*before, {**added, "status": "completed", "updated_at": iso(1_764_000_000_000)}]


def test_an_account_has_one_currency() -> None:
    data = Data("v1", Settings(), NOW)
    currencies = {row["id"]: row["currency"] for row in rows(data.accounts)}
    found = rows(data.transactions)
    assert all(row["currency"] == currencies[row["account_id"]] for row in found)
    assert {row["id"]: row["balance"] for row in rows(data.accounts)} == sums(found)
    assert len({row["amount"] > 0 for row in found if row["account_id"] == found[0]["account_id"]}) == 2
