# SPDX-License-Identifier: Apache-2.0
"""The new records of a list, from one poll to the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.arguments import newest_query
from intergiro_provider.pull.new_records import Position, find_new_records, is_position
from intergiro_provider.pull.pages import iter_pages
from tests.unit.pull.lists import pages_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT = 4


def at(milliseconds: int) -> str:
    return (NOON + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Bank:
    """A list, newest first, of which one page of LIMIT records is shown."""

    def __init__(self, *records: tuple[str, int]) -> None:
        self.records = list(records)
        self.seen: Position | None = None

    def add(self, identity: str, milliseconds: int) -> None:
        self.records.append((identity, milliseconds))

    def look(self) -> dict[str, Any] | None:
        """Poll once, and store the position as JSON."""
        newest = sorted(self.records, key=lambda record: record[1], reverse=True)
        page = [{"id": identity, "created_at": at(ms)} for identity, ms in newest[:LIMIT]]
        body = json.dumps({"data": page, "has_more": len(newest) > LIMIT}).encode()
        position, news = find_new_records(next(iter_pages(pages_of(lambda query: body))), self.seen)
        self.seen = json.loads(json.dumps(position))
        assert is_position(self.seen)
        return news


def test_the_first_look_finds_nothing_new() -> None:
    bank = Bank(("a", 1), ("b", 2))
    assert bank.look() is None
    assert bank.look() is None


@pytest.mark.parametrize("times", [[1, 2, 3], [3, 1, 2], [3, None, 1]])
def test_a_list_that_does_not_begin_with_its_newest_cannot_be_watched(times: list[int | None]) -> None:
    records = [{"id": f"r{n}", "created_at": None if ms is None else at(ms)} for n, ms in enumerate(times)]

    def look(has_more: bool) -> Any:
        body = json.dumps({"data": records, "has_more": has_more}).encode()
        return find_new_records(next(iter_pages(pages_of(lambda query: body))), None)

    assert look(has_more=False)[1] is None
    with pytest.raises(IntergiroValueError, match="newest records first"):
        look(has_more=True)


def test_new_records_the_oldest_first_and_their_interval() -> None:
    bank = Bank(("a", 1), ("b", 2))
    bank.look()
    bank.add("c", 10)
    bank.add("d", 20)
    assert bank.look() == {"ids": ["c", "d"], "more": False, "created_from": at(10), "created_to": at(21)}
    assert bank.look() is None


def test_a_list_that_was_empty() -> None:
    bank = Bank()
    assert bank.look() is None
    bank.add("a", 1)
    news = bank.look()
    assert news is not None
    assert news["ids"] == ["a"]


def test_records_of_one_instant_that_come_one_after_the_other() -> None:
    bank = Bank(("a", 1))
    bank.look()
    for identity in "bcd":
        bank.add(identity, 1)
        news = bank.look()
        assert news == {"ids": [identity], "more": False, "created_from": at(1), "created_to": at(2)}


def test_a_record_that_the_bank_lists_late() -> None:
    bank = Bank(*[(f"r{n}", n) for n in range(10)])
    bank.look()
    bank.add("late", 7)
    news = bank.look()
    assert news == {"ids": ["late"], "more": False, "created_from": at(7), "created_to": at(8)}


def test_what_moves_up_when_something_is_gone_is_not_new() -> None:
    bank = Bank(*[(f"r{n}", n) for n in range(10)])
    bank.look()
    bank.records = bank.records[:-2]
    assert bank.look() is None
    bank.add("new", 20)
    news = bank.look()
    assert news is not None
    assert news["ids"] == ["new"]


def test_more_than_fit_the_page() -> None:
    bank = Bank(("a", 1), ("b", 2))
    bank.look()
    for n in range(LIMIT + 3):
        bank.add(f"n{n}", 10 + n)
    # Three of them are not on the page, so the interval begins with the newest record of the last poll.
    assert bank.look() == {"ids": ["n3", "n4", "n5", "n6"], "more": True, "created_from": at(2), "created_to": at(17)}
    assert bank.look() is None


def test_more_than_fit_the_page_of_a_list_that_was_empty() -> None:
    bank = Bank()
    bank.look()
    for n in range(LIMIT + 1):
        bank.add(f"n{n}", n)
    news = bank.look()
    assert news is not None
    assert news["more"]
    assert news["created_from"] == "1970-01-01T00:00:00.000Z"


def test_a_page_that_is_just_full_of_news() -> None:
    bank = Bank()
    bank.look()
    for n in range(LIMIT):
        bank.add(f"n{n}", n)
    assert bank.look() == {
        "ids": ["n0", "n1", "n2", "n3"], "more": False, "created_from": at(0), "created_to": at(LIMIT),
    }  # fmt: skip


def test_every_record_is_within_the_interval_of_an_event_whatever_the_rhythm() -> None:
    """Polls between bursts of every size: no record is missed, and only records at a bound are in two events."""
    bank = Bank(("first", 0))
    bank.look()
    told: set[str] = set()
    clock = 0
    for burst in [1, 2, 9, 0, 3, 4, 5, 0, 0, 12, 1]:
        names = []
        for n in range(burst):
            clock += n % 2  # two records with the same time
            names.append(f"{clock}-{n}")
            bank.add(names[-1], clock)
        news = bank.look()
        assert (news is None) == (burst == 0)
        if news is not None:
            covered = {i for i, ms in bank.records if news["created_from"] <= at(ms) < news["created_to"]}
            assert set(news["ids"]) <= set(names) <= covered
            told |= covered
        clock += 1
    assert told >= {identity for identity, _ in bank.records if identity != "first"}


def test_records_without_a_time() -> None:
    def page(*ids: int) -> Any:
        body = json.dumps([{"id": i} for i in ids]).encode()
        return next(iter_pages(pages_of(lambda query: body)))

    seen, _ = find_new_records(page(1, 2), None)
    _, news = find_new_records(page(3, 1, 2), seen)
    assert news == {"ids": [3], "more": False, "created_from": None, "created_to": None}


def test_records_without_an_id_are_refused() -> None:
    body = b'[{"name": "Anna Andersson"}]'
    with pytest.raises(IntergiroResponseError, match="without an `id`") as caught:
        find_new_records(next(iter_pages(pages_of(lambda query: body))), None)
    assert "Anna" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {},
        {"ids": "x"},
        {"ids": [["x"]]},
        {"ids": [], "newest": "yesterday"},
        {"ids": [], "newest": None, "oldest": 3},
        {"ids": [], "newest": "2026-01-01T00:00:00"},
    ],
)
def test_what_is_no_position(value: Any) -> None:
    assert not is_position(value)


@pytest.mark.parametrize("name", ["limit", "sort_by", "sort_type", "starting_after", "ending_before"])
def test_order_and_pages_are_not_for_choice(name: str) -> None:
    with pytest.raises(IntergiroValueError, match=f"`{name}`"):
        newest_query({name: "x"})


def test_the_query() -> None:
    assert newest_query({"statuses": "completed", "limit": None}) == {
        "statuses": "completed", "sort_by": "created_at", "sort_type": "DESC", "limit": 100,
    }  # fmt: skip
