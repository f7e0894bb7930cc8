# SPDX-License-Identifier: Apache-2.0
"""Windows pulled in parallel: every record once, with every kind of bounds and order at the bank."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroResponseError
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.pages import Page
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from intergiro_provider.pull.windows import PAGES_TO_SPLIT, Windows
from tests.unit.pull.lists import pages_of
from tests.unit.pull.stores import check_only_result
from tests.unit.pull.timed import BEGIN, TimedList

DAY = 86_400_000


def interval(start: int, end: int) -> Interval:
    return Interval(BEGIN + timedelta(milliseconds=start), BEGIN + timedelta(milliseconds=end))


def pulled(directory: Path, bank: Any, start: int = 0, end: int = DAY, windows: int = 4, **params: Any) -> list[bytes]:
    """Pull in pages of 5. Return the lines in the order of the manifest."""
    request = PullRequest(
        endpoint="transactions",
        query={"limit": 5, **params},
        interval=interval(start, end),
        max_parallel_windows=windows,
    )
    fs = LocalFileSystem(skip_instance_cache=True)
    Pull(request, pages_of(bank), Target(Directory(fs, str(directory)), "")).run()
    return check_only_result(fs, str(directory))[1].splitlines()


def even(count: int, length: int = DAY) -> list[int]:
    return [n * length // count for n in range(count)]


def test_every_record_once_and_in_order(tmp_path: Path) -> None:
    bank = TimedList(even(1000), pause=0.001)
    assert pulled(tmp_path, bank) == bank.records
    assert bank.most_at_once == 4
    # Each split costs at most one request.
    assert len(bank.queries) <= 1000 // 5 * 1.25


def test_a_quiet_interval_costs_one_request(tmp_path: Path) -> None:
    bank = TimedList(even(4))
    assert pulled(tmp_path, bank) == bank.records
    assert len(bank.queries) == 1


def test_one_window_asks_for_no_order(tmp_path: Path) -> None:
    bank = TimedList(even(40))
    assert sorted(pulled(tmp_path, bank, windows=1)) == bank.records
    assert "sort_by" not in bank.queries[0]
    assert bank.most_at_once == 1


@pytest.mark.parametrize("params", [{"sort_type": "DESC"}, {"sort_by": "id"}])
def test_another_order_is_one_cursor(tmp_path: Path, params: dict[str, str]) -> None:
    bank = TimedList(even(100), pause=0.001)
    assert sorted(pulled(tmp_path, bank, **params)) == bank.records
    assert bank.most_at_once == 1
    assert params.items() <= bank.queries[0].items()


def test_a_heavy_hour_is_shared(tmp_path: Path) -> None:
    """Nearly all records are within one minute of the day."""
    heavy = [DAY // 3 + n * 60 for n in range(900)]
    bank = TimedList([*heavy, *even(50)], pause=0.02)
    assert pulled(tmp_path, bank, windows=8) == bank.records
    busy = [q for q in bank.queries if q["created_to"] <= "2026-01-01T08:01:00.000Z"]
    assert len({q["created_to"] for q in busy}) >= 8, "cut again and again until all could help"
    assert len(bank.queries) <= 950 // 5 * 1.5


@pytest.mark.parametrize("shown", [(1,), (1000,), (60_000,), (3_600_000,), (86_400_000,), (1, 1000), (1, 60_000)])
@pytest.mark.parametrize("hours", [1, 24])
def test_a_bank_that_filters_more_finely_than_it_shows(tmp_path: Path, shown: tuple[int, ...], hours: int) -> None:
    """Splits are at whole seconds, minutes or hours, where filter and displayed time agree for each record."""
    bank = TimedList([n * hours * 3_600_000 // 1200 + n % 997 for n in range(1200)], shown=shown, pause=0.0005)
    found = pulled(tmp_path, bank, windows=16)
    assert sorted(found) == bank.records
    if len(shown) == 1:
        assert (bank.most_at_once > 1) == (shown[0] < 3_600_000)


@pytest.mark.parametrize("includes", [True, False])
def test_equal_times_belong_to_one_window(tmp_path: Path, includes: bool) -> None:
    """Hundreds of records have a few equal times, at which windows are split."""
    bank = TimedList([n * DAY // 16 for n in range(16)] * 40, pause=0.001, includes=includes)
    assert pulled(tmp_path, bank) == bank.expected(0, DAY)


@pytest.mark.parametrize(
    "odd", [{"sorts": False}, {"knows_order": False}, {"filters": False}, {"sorts": False, "filters": False}]
)
def test_a_bank_that_does_not_do_as_asked_is_one_cursor(tmp_path: Path, odd: dict[str, bool]) -> None:
    bank = TimedList(even(200, 2 * DAY), pause=0.001, **odd)
    found = pulled(tmp_path, bank, DAY // 4, DAY)
    assert sorted(found) == bank.expected(DAY // 4, DAY)
    assert bank.most_at_once == 1


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 3000), max_size=300),
    bounds=st.tuples(st.integers(0, 3000), st.integers(1, 3000)),
    windows=st.integers(2, 6),
    includes=st.booleans(),
    seed=st.integers(0, 10),
)
def test_any_list_in_any_interval(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[int],
    bounds: tuple[int, int],
    windows: int,
    includes: bool,
    seed: int,
) -> None:
    start, end = bounds[0], bounds[0] + bounds[1]
    bank = TimedList(times, includes=includes, pause=0.0002, seed=seed)
    found = pulled(tmp_path_factory.mktemp("pull"), bank, start, end, windows)
    assert found == bank.expected(start, end)


def test_a_failure_of_one_is_the_failure_of_all(tmp_path: Path) -> None:
    bank = TimedList(even(500), pause=0.002)
    begun = threading.Event()

    def failing(query: dict[str, Any]) -> bytes:
        if len(bank.queries) > 20 and not begun.is_set():
            begun.set()
            return b"<html>"
        return bank(query)

    before = threading.active_count()
    with pytest.raises(IntergiroResponseError):
        pulled(tmp_path, failing)
    assert begun.is_set()
    assert len(bank.queries) < 40, "the others end before their next page"
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == before


def test_an_order_that_ends_in_the_middle_is_an_error(tmp_path: Path) -> None:
    bank = TimedList(even(400), pause=0.001)

    def confused(query: dict[str, Any]) -> bytes:
        answer = bank(query)
        bank.sorts = len(bank.queries) < 12
        return answer

    bank.outside_cursor = True
    with pytest.raises(IntergiroResponseError):
        pulled(tmp_path, confused)


class TestSplits:
    """The decisions themselves, without threads."""

    @staticmethod
    def page_at(*seconds: int, has_more: bool = True) -> Page:
        times = [BEGIN + timedelta(seconds=each) for each in seconds]
        return Page([b'{"id":"kept"}'] * len(times), times, ["kept"] * len(times), has_more)  # type: ignore[list-item]

    def test_a_page_in_flight_during_a_split_leaves_records_to_the_new_window(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        first.query({})
        windows.accept(first, self.page_at(1, 10))
        second = windows.take()
        assert second is not None
        assert second.interval == interval(505_000, 1_000_000)
        assert len(windows.accept(first, self.page_at(500, 504, 505, 506))) == 2
        assert (first.restarts, first.cursor) == (True, "kept"), "the last record lies beyond the new end"
        first.query({"starting_after": "kept"})
        assert len(windows.accept(first, self.page_at(505, 506))) == 0
        assert not first.restarts, "a bank that includes its bounds: they are a cursor"

    def test_after_a_page_of_which_nothing_is_kept_the_list_is_requested_from_the_same_cursor(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        first.query({})
        windows.accept(first, self.page_at(1, 10))
        first.query({"starting_after": "r1"})
        windows.take()
        assert len(windows.accept(first, self.page_at(505, 506))) == 0
        assert (first.restarts, first.cursor) == (True, "r1")

    def test_a_late_record_behind_a_split_is_an_error(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        windows.accept(first, self.page_at(1, 10))
        windows.take()
        windows.accept(first, self.page_at(500, 504, 505, 506))
        with pytest.raises(IntergiroResponseError, match="not sorted"):
            windows.accept(first, self.page_at(400))

    def test_splits_before_the_next_page_are_even(self) -> None:
        windows = Windows(interval(0, 1_600_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        windows.accept(first, self.page_at(1, 10))
        for _ in range(15):
            windows.take()
        lengths = [w.interval.end - w.interval.start for w in windows.all if w.interval]
        assert max(lengths) < 1.1 * min(lengths)

    def test_a_window_near_its_end_is_not_split(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        step = 1000 // PAGES_TO_SPLIT
        windows.accept(first, self.page_at(0, step))
        assert first.pages_left() < PAGES_TO_SPLIT
        assert windows._split() is None

    def test_the_last_page_leaves_nothing_to_split(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        windows.accept(first, self.page_at(0, 1, has_more=False))
        assert first.pages_left() == 0

    def test_the_share_is_of_time(self) -> None:
        windows = Windows(interval(0, 1_000_000), can_be_split=True)
        first = windows.take()
        assert first is not None
        windows.accept(first, self.page_at(1, 10, 20))
        second = windows.take()
        assert second is not None
        assert windows.share() == pytest.approx(0.02)
        windows.end(first)
        assert windows.share() == pytest.approx(0.51)
        assert windows.counts() == (1, 2)
