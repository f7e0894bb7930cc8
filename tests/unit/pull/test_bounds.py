# SPDX-License-Identifier: Apache-2.0
"""The interval of a pull: reading the bounds, the query, and the selection of records."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.bounds import Interval, format_instant, parse_interval
from intergiro_provider.pull.pages import iter_pages
from tests.unit.pull.lists import pages_of

STOCKHOLM = timezone(timedelta(hours=1))
DAY = ("2026-01-31", "2026-02-01")


def interval(created_from: Any, created_to: Any, lookback: timedelta | None = None) -> Interval:
    found = parse_interval(created_from, created_to, lookback)
    assert found is not None
    return found


def select(times: list[str], within: Interval) -> list[str]:
    """Return those of these times, each the raw JSON of a created_at, that the interval selects."""
    records = [f'{{"id":"{n}","created_at":{time}}}' for n, time in enumerate(times)]
    [page] = iter_pages(pages_of(lambda query: f"[{','.join(records)}]".encode()))
    return [times[int(json.loads(bytes(r))["id"])] for r in within.select(page)]


class TestReadingBounds:
    @pytest.mark.parametrize(
        "bound",
        ["2026-01-31", " 2026-01-31 ", "20260131", date(2026, 1, 31),
         "2026-01-31T00:00:00Z", "2026-01-31 00:00:00+00:00",
         "2026-01-31T01:00:00.000+01:00", "2026-01-31T00Z", datetime(2026, 1, 31, tzinfo=UTC),
         datetime(2026, 1, 31, 1, tzinfo=STOCKHOLM), datetime(2026, 1, 31, 0, 0, 0, 999, tzinfo=UTC)],
    )  # fmt: skip
    def test_forms_of_one_instant(self, bound: Any) -> None:
        assert interval(bound, "2026-02-01").created_from == "2026-01-31T00:00:00.000Z"
        assert interval("2026-01-01", bound).created_to == "2026-01-31T00:00:00.000Z"

    def test_airflows_own_datetimes(self) -> None:
        import pendulum

        found = interval(
            pendulum.datetime(2026, 1, 31, tz="Europe/Stockholm"), str(pendulum.datetime(2026, 2, 1, tz="UTC"))
        )
        assert (found.created_from, found.created_to) == ("2026-01-30T23:00:00.000Z", "2026-02-01T00:00:00.000Z")
        assert type(found.start) is datetime

    def test_no_bounds_no_filter(self) -> None:
        assert parse_interval(None, None) is None

    @pytest.mark.parametrize("bound", ["2026-01-31T00:00:00", "2026-01-31 12:00", datetime(2026, 1, 31)])
    def test_a_time_without_zone_is_refused(self, bound: Any) -> None:
        with pytest.raises(IntergiroValueError, match=r"`created_from` .* without a time zone"):
            parse_interval(bound, "2026-02-01")
        with pytest.raises(IntergiroValueError, match=r"`created_to` .* without a time zone"):
            parse_interval("2026-01-01", bound)

    @pytest.mark.parametrize("bound", ["None", "", "  ", "null", "none"])
    def test_a_template_that_found_nothing_is_refused(self, bound: str) -> None:
        with pytest.raises(IntergiroValueError, match="`created_to` is the text .* its template found no value"):
            parse_interval("2026-01-01", bound)
        with pytest.raises(IntergiroValueError, match="`created_from` is the text"):
            parse_interval(bound, bound)

    @pytest.mark.parametrize("bound", ["yesterday", "2026-13-01", "31.1.2026", "1767225600", "2026-01-31T25:00Z"])
    def test_what_is_no_time_is_refused(self, bound: str) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` is .* no date or time in ISO 8601"):
            parse_interval(bound, "2026-02-01")

    @pytest.mark.parametrize("bound", [0, 1767225600, 1.5, b"2026-01-31", ["2026-01-31"]])
    def test_other_types_are_refused(self, bound: Any) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` must be an aware datetime or a str"):
            parse_interval(bound, "2026-02-01")

    def test_a_date_that_native_rendering_has_made_a_number_is_that_date(self) -> None:
        assert parse_interval(20260131, 20260201) == parse_interval("20260131", "20260201") == interval(*DAY)

    def test_one_bound_is_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` is given without `created_to`"):
            parse_interval("2026-01-31", None)
        with pytest.raises(IntergiroValueError, match="`created_to` is given without `created_from`"):
            parse_interval(None, "2026-01-31")

    def test_an_empty_interval_is_refused_and_says_why_it_may_be(self) -> None:
        with pytest.raises(
            IntergiroValueError, match=r"empty: both are 2026-01-31T00:00:00.000Z.*CronDataIntervalTimetable"
        ):
            parse_interval("2026-01-31", "2026-01-31T01:00:00+01:00")
        with pytest.raises(IntergiroValueError, match="empty"):
            parse_interval("2026-01-31T00:00:00.0001Z", "2026-01-31T00:00:00.0009Z")

    def test_a_reversed_interval_is_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="reversed"):
            parse_interval("2026-02-01", "2026-01-31")

    def test_beyond_the_calendar(self) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` lies outside the years"):
            parse_interval("0001-01-01T00:00:00+01:00", "2026-01-31")
        assert interval("0001-01-01", "9999-12-31").query()["created_from"] == "0001-01-01T00:00:00.000Z"


class TestLookback:
    def test_moves_the_beginning_back(self) -> None:
        found = interval(*DAY, timedelta(days=3, microseconds=1))
        assert (found.created_from, found.created_to) == ("2026-01-27T23:59:59.999Z", "2026-02-01T00:00:00.000Z")

    def test_none_at_all(self) -> None:
        assert interval(*DAY, timedelta(0)) == interval(*DAY)

    @pytest.mark.parametrize("lookback", [timedelta(days=-1), 3, "3 days"])
    def test_what_is_no_lookback(self, lookback: Any) -> None:
        with pytest.raises(IntergiroValueError, match="`lookback`"):
            parse_interval(*DAY, lookback)

    def test_needs_bounds(self) -> None:
        with pytest.raises(IntergiroValueError, match="`lookback` moves `created_from` back, but neither"):
            parse_interval(None, None, timedelta(days=1))

    def test_does_not_excuse_an_empty_interval(self) -> None:
        with pytest.raises(IntergiroValueError, match="empty"):
            parse_interval("2026-01-31", "2026-01-31", timedelta(days=1))

    def test_too_far(self) -> None:
        with pytest.raises(IntergiroValueError, match="`lookback` moves `created_from` to before"):
            parse_interval(*DAY, timedelta(days=999_999))


class TestWhatIsSent:
    def test_wide_enough_below_for_a_bank_that_leaves_the_bound_out(self) -> None:
        assert interval(*DAY).query() == {
            "created_from": "2026-01-30T23:59:59.999Z",
            "created_to": "2026-02-01T00:00:00.000Z",
        }

    def test_format(self) -> None:
        assert format_instant(datetime(2026, 1, 2, 3, 4, 5, 678_999, STOCKHOLM)) == "2026-01-02T02:04:05.678Z"


class TestWhatIsKept:
    def test_the_first_instant_is_in_and_the_last_is_out(self) -> None:
        times = [
            '"2026-01-30T23:59:59.999Z"',
            '"2026-01-31T00:00:00.000Z"',
            '"2026-01-31T23:59:59.999Z"',
            '"2026-02-01T00:00:00.000Z"',
        ]
        assert select(times, interval(*DAY)) == times[1:3]

    def test_other_forms_of_times(self) -> None:
        inside = ['"2026-01-31T00:00:00Z"', '"2026-01-31T00:30:00+01:00"', '"2026-02-01T00:59:59.9+01:00"',
                  '"2026-01-31T12:00:00"', '"2026-01-31 12:00:00.123456+00:00"', '"20260131T120000Z"',
                  '"2026-01-31"']  # fmt: skip
        outside = ['"2026-01-31T00:30:00+02:00"', '"2026-02-01T00:00:00"', '"2026-02-02"']
        early = interval("2026-01-30T23:00:00Z", "2026-02-01")
        assert select(inside + outside, early) == inside
        for time in inside[:5]:  # each alone as well, without an unusual time on the same page
            assert select([time], early) == [time]

    @pytest.mark.parametrize("odd", ["null", '"soon"', "1767225600", "{}", '""'])
    def test_a_time_that_cannot_be_read_is_an_error(self, odd: str) -> None:
        with pytest.raises(IntergiroResponseError, match="a record without a valid `created_at`"):
            select(['"2026-01-31T00:00:00Z"', odd], interval(*DAY))

    @given(
        st.lists(st.integers(0, 40_000), min_size=1, max_size=30),
        st.lists(st.integers(0, 40_000_000), min_size=2, max_size=6, unique=True),
    )
    def test_each_record_is_in_one_of_two_adjacent_intervals(self, times: list[int], cuts: list[int]) -> None:
        """For all bounds, even finer than a millisecond, no record is lost, and none is in both."""
        start = datetime(2026, 1, 31, tzinfo=UTC)
        bounds = [start + timedelta(microseconds=us) for us in sorted(cuts)]
        written = [f'"{format_instant(start + timedelta(milliseconds=ms))}"' for ms in times]
        kept: list[str] = []
        for lower, upper in itertools.pairwise(bounds):
            try:
                kept += select(written, interval(lower, upper))
            except IntergiroValueError:
                assert (upper - lower) < timedelta(milliseconds=1)
        first, last = (format_instant(b) for b in (bounds[0], bounds[-1]))
        assert sorted(kept) == sorted(t for t in written if first <= t.strip('"') < last)
