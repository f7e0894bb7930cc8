# SPDX-License-Identifier: Apache-2.0
"""Where an increment begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.watermark import next_increment, watermark_after


def day(number: int) -> datetime:
    return datetime(2026, 3, number, tzinfo=UTC)


def result(start: int, end: int, rows: int = 5) -> Manifest:
    interval = Interval(day(start), day(end))
    return Manifest(
        pull_id="p", endpoint="transactions", parts=[], rows=rows, bytes=0, first_id=None, last_id=None,
        created_from=interval.created_from, created_to=interval.created_to,
    )  # fmt: skip


ASKED = Interval(day(1), day(10))
DAYS = timedelta(days=2)


def test_the_first_begins_as_it_was_asked_for() -> None:
    assert next_increment(ASKED, None, None) == ASKED
    assert next_increment(Interval(day(5), day(10)), None, None, DAYS) == Interval(day(3), day(10))


def test_the_next_begins_at_the_watermark() -> None:
    assert next_increment(ASKED, day(9), None) == Interval(day(9), day(10))
    assert next_increment(ASKED, day(9), None, DAYS) == Interval(day(7), day(10))


def test_one_that_was_missed_is_made_up_for() -> None:
    assert next_increment(Interval(day(9), day(10)), day(6), None) == Interval(day(6), day(10))


def test_a_second_run_pulls_the_same_again() -> None:
    """Whether or not the watermark has moved. The lookback is applied only once."""
    for watermark in (None, day(8), day(10), day(20)):
        assert next_increment(ASKED, watermark, result(8, 10), DAYS) == Interval(day(8), day(10))


@pytest.mark.parametrize("watermark", [day(10), day(11)])
def test_nothing_before_the_watermark_is_pulled_by_mistake(watermark: datetime) -> None:
    for former in (None, result(3, 4)):
        with pytest.raises(IntergiroValueError, match=r"`watermark`: everything before 2026-03-1.* is pulled already"):
            next_increment(ASKED, watermark, former)


def test_another_increment_is_not_replaced() -> None:
    with pytest.raises(IntergiroValueError, match="`path` holds another increment"):
        next_increment(ASKED, day(9), result(8, 9))
    assert next_increment(ASKED, day(9), result(8, 9, rows=0)) == Interval(day(9), day(10))


def test_the_watermark_stays_behind_what_the_bank_may_list_late() -> None:
    end = ASKED.end
    assert watermark_after(ASKED, end + timedelta(days=1)) == "2026-03-10T00:00:00.000Z"
    assert watermark_after(ASKED, end + timedelta(seconds=1)) == "2026-03-09T23:55:01.000Z"
    assert watermark_after(ASKED, end - timedelta(days=1)) == "2026-03-08T23:55:00.000Z", "an end in the future"
