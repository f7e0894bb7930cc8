# SPDX-License-Identifier: Apache-2.0
"""The interval of a pull: ``created_from ≤ created_at < created_to``, whatever the bank's own bounds include.

The bank does not say whether its ``created_from`` and ``created_to`` are inclusive. So the query is wide enough for
both, and each record's ``created_at`` decides here:

* The query starts 1 ms early, because the bank's times have milliseconds. So a bank whose bound is exclusive still
  sends the records of the first instant.
* The query ends where the interval ends. A bank whose bound is inclusive sends extra records, which are left out.

Both bounds are cut to whole milliseconds, because a query can send no more. Both are cut in the same way, so adjacent
intervals stay adjacent: every record belongs to exactly one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError

if TYPE_CHECKING:
    import msgspec

    from intergiro_provider.pull.pages import Page

_MILLISECOND = timedelta(milliseconds=1)
_NO_VALUE = frozenset({"", "none", "null", "nat", "undefined"})
_EXAMPLE = "such as 2026-01-31 (00:00 UTC) or 2026-01-31T12:00:00+01:00"


class Interval(NamedTuple):
    """A half-open span of time, in UTC, in whole milliseconds: ``start ≤ t < end``."""

    start: datetime
    end: datetime

    @property
    def created_from(self) -> str:
        """The first instant, in the form of the manifest."""
        return format_instant(self.start)

    @property
    def created_to(self) -> str:
        """The instant at which the interval ends, in the form of the manifest."""
        return format_instant(self.end)

    def query(self) -> dict[str, str]:
        """Return the bounds for the bank. They hold every record of the interval, and perhaps a few more."""
        early = self.start - _MILLISECOND if self.start - _EARLIEST >= _MILLISECOND else self.start
        return {"created_from": format_instant(early), "created_to": self.created_to}

    def select(self, page: Page) -> list[msgspec.Raw]:
        """Return the records of a page that belong to the interval.

        :raises IntergiroResponseError: a record has no valid ``created_at``.
        """
        start, end = self
        try:
            return [r for r, t in zip(page.records, page.created_at, strict=True) if start <= t < end]
        except TypeError:  # a time is missing, or has an unusual form
            times = _read_times(page.created_at)
            return [r for r, t in zip(page.records, times, strict=True) if start <= t < end]


_EARLIEST = datetime.min.replace(tzinfo=UTC)


def format_instant(instant: datetime) -> str:
    """Return an aware datetime as ``YYYY-MM-DDTHH:MM:SS.mmmZ``, cut to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_interval(created_from: Any, created_to: Any, lookback: timedelta | None = None) -> Interval | None:
    """Read the bounds of a pull. Return None if there are none: the pull has no filter then.

    :param created_from: the first instant: an aware datetime, a date, or either of them as a str in ISO 8601. A date is
        00:00 UTC.
    :param created_to: the instant at which the interval ends.
    :param lookback: moves ``created_from`` back.
    :raises IntergiroValueError: a bound is invalid, naive or missing; the interval is empty or reversed; or there is a
        ``lookback`` without bounds.
    """
    _check_lookback(lookback)
    if created_from is None and created_to is None:
        if lookback:
            raise IntergiroValueError(
                "`lookback` moves `created_from` back, but neither `created_from` nor `created_to` is given."
            )
        return None
    for name, value, other in (
        ("created_from", created_from, "created_to"),
        ("created_to", created_to, "created_from"),
    ):
        if value is None:
            raise IntergiroValueError(f"`{other}` is given without `{name}`. Give both, or neither to pull everything.")
    start, end = _instant("created_from", created_from), _instant("created_to", created_to)
    if start == end:
        raise IntergiroValueError(
            f"The interval from `created_from` to `created_to` is empty: both are {format_instant(start)}. "
            'In Airflow 3 a plain `schedule="@daily"` or cron expression creates runs whose data_interval_start equals '
            "data_interval_end. Schedule the DAG with CronDataIntervalTimetable, or compute the bounds from the run's "
            "date."
        )
    if start > end:
        raise IntergiroValueError(
            f"The interval is reversed: `created_from` ({format_instant(start)}) is later than `created_to` "
            f"({format_instant(end)})."
        )
    return look_back(Interval(start, end), lookback)


def look_back(interval: Interval, lookback: timedelta | None) -> Interval:
    """Return the interval with an earlier start.

    :raises IntergiroValueError: the start would lie before the year 1.
    """
    if not lookback:
        return interval
    try:
        return Interval(whole_milliseconds(interval.start - lookback), interval.end)
    except OverflowError:
        raise IntergiroValueError("`lookback` moves `created_from` to before the year 1.") from None


def read_instant(name: str, value: Any) -> datetime:
    """Return a stored instant as an aware datetime in UTC, cut to the millisecond.

    :raises IntergiroValueError: the value is no instant. The message contains `name`.
    """
    return _instant(name, value)


def _check_lookback(lookback: Any) -> None:
    if lookback is None:
        return
    if not isinstance(lookback, timedelta) or lookback < timedelta(0):
        raise IntergiroValueError(
            f"`lookback` must be a timedelta that is not negative, such as timedelta(days=3), not {lookback!r}."
        )


def _instant(name: str, value: Any) -> datetime:
    """Return a bound as an aware datetime in UTC, cut to the millisecond."""
    if isinstance(value, int) and 10_000_000 <= value <= 99_999_999:
        value = str(value)  # native rendering turns 20260131 into an integer
    if isinstance(value, str):
        value = _parse(name, value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise IntergiroValueError(
            f"`{name}` must be an aware datetime or a str, {_EXAMPLE}, not {type(value).__name__}."
        )
    if value.utcoffset() is None:
        raise IntergiroValueError(
            f"`{name}` is {value.isoformat()}, a time without a time zone. Add one, such as +00:00 or Z, or give a "
            "date for 00:00 UTC."
        )
    try:
        return whole_milliseconds(value.astimezone(UTC))
    except OverflowError:
        raise IntergiroValueError(f"`{name}` lies outside the years 1 to 9999 in UTC.") from None


def whole_milliseconds(instant: datetime) -> datetime:
    """Return an instant cut to the millisecond, the precision of the bank's times."""
    # A plain datetime and no subclass, because a pull compares it with the time of each record.
    return datetime(
        instant.year, instant.month, instant.day, instant.hour, instant.minute, instant.second,
        instant.microsecond // 1000 * 1000, tzinfo=UTC,
    )  # fmt: skip


def _parse(name: str, value: str) -> date | datetime:
    text = value.strip()
    if text.lower() in _NO_VALUE:
        raise IntergiroValueError(
            f"`{name}` is the text {value!r}: its template found no value. A run that was started by hand or by "
            "an asset may have no logical_date and no data interval in Airflow 3; fall back on `dag_run.run_after`. "
            "To pull without bounds, leave out both."
        )
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise IntergiroValueError(f"`{name}` is {value!r}, which is no date or time in ISO 8601, {_EXAMPLE}.") from None


def _read_times(values: Iterable[Any]) -> list[datetime]:
    return [_read_time(value) for value in values]


def _read_time(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise IntergiroResponseError(
            "The list holds a record without a valid `created_at`, so it is not known whether it belongs to the "
            "interval. Pull this endpoint without `created_from` and `created_to`."
        )
    return value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
