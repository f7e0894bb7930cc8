# SPDX-License-Identifier: Apache-2.0
"""The interval of a pull: ``created_from ≤ created_at < created_to``, whatever the bank's own bounds include.

The bank does not say whether its ``created_from`` and ``created_to`` include their own instant. So the query
is wide enough for either reading, and each record's ``created_at`` decides here:

* below, the query starts 1 ms early (the bank's times have milliseconds): a bank that leaves the bound out
  still sends the records of the first instant;
* above, the query ends where the interval ends: a bank that includes the bound sends records too many, which
  are left out.

Both bounds are cut to whole milliseconds, which is what can be sent. Since both are cut the same way,
intervals that adjoin still do: every record belongs to exactly one of them.
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
_NOTHING = frozenset({"", "none", "null", "nat", "undefined"})
_EXAMPLE = "such as 2026-01-31 (00:00 UTC) or 2026-01-31T12:00:00+01:00"


class Interval(NamedTuple):
    """A half-open span of time, in UTC, in whole milliseconds: ``start ≤ t < end``."""

    start: datetime
    end: datetime

    @property
    def created_from(self) -> str:
        """The first instant, as it is written to the manifest."""
        return format_instant(self.start)

    @property
    def created_to(self) -> str:
        """The instant at which the interval has ended, as it is written to the manifest."""
        return format_instant(self.end)

    def query(self) -> dict[str, str]:
        """What to send to the bank: enough for every record of the interval, perhaps some more."""
        early = self.start - _MILLISECOND if self.start - _EARLIEST >= _MILLISECOND else self.start
        return {"created_from": format_instant(early), "created_to": self.created_to}

    def select(self, page: Page) -> list[msgspec.Raw]:
        """The records of a page that belong to the interval.

        :raises IntergiroResponseError: a record has no ``created_at`` that can be read.
        """
        start, end = self
        try:
            return [r for r, t in zip(page.records, page.created_at, strict=True) if start <= t < end]
        except TypeError:  # a time that is missing, or has an unusual form
            times = _read_times(page.created_at)
            return [r for r, t in zip(page.records, times, strict=True) if start <= t < end]


_EARLIEST = datetime.min.replace(tzinfo=UTC)


def format_instant(instant: datetime) -> str:
    """``YYYY-MM-DDTHH:MM:SS.mmmZ``, cut to the millisecond. The datetime has to be aware."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_interval(created_from: Any, created_to: Any, lookback: timedelta | None = None) -> Interval | None:
    """Read the bounds of a pull; None if there are none, and so no filter.

    :param created_from: first instant: an aware datetime, a date, or a str with either in ISO 8601. A bare
        date is 00:00 UTC.
    :param created_to: the instant at which the interval has ended.
    :param lookback: moves ``created_from`` back by this much.
    :raises IntergiroValueError: a bound cannot be read, is naive, is missing beside the other, or the
        interval is empty or reversed; or ``lookback`` has no ``created_from`` to move.
    """
    _check_lookback(lookback)
    if created_from is None and created_to is None:
        if lookback:
            raise IntergiroValueError(
                "`lookback` moves `created_from` back, but neither `created_from` nor `created_to` is given"
            )
        return None
    for name, value, other in (
        ("created_from", created_from, "created_to"),
        ("created_to", created_to, "created_from"),
    ):
        if value is None:
            raise IntergiroValueError(f"`{other}` is given without `{name}`: give both, or neither to pull everything")
    start, end = _instant("created_from", created_from), _instant("created_to", created_to)
    if start == end:
        raise IntergiroValueError(
            f"the interval from `created_from` to `created_to` is empty: both are {format_instant(start)}. "
            'In Airflow 3 a plain `schedule="@daily"` or cron expression gives runs whose data_interval_start '
            "equals data_interval_end: schedule the DAG with CronDataIntervalTimetable, or compute the bounds "
            "from the run's date"
        )
    if start > end:
        raise IntergiroValueError(
            f"the interval is reversed: `created_from` ({format_instant(start)}) is later than `created_to` "
            f"({format_instant(end)})"
        )
    return look_back(Interval(start, end), lookback)


def look_back(interval: Interval, lookback: timedelta | None) -> Interval:
    """The interval with its beginning moved back.

    :raises IntergiroValueError: there is no such time.
    """
    if not lookback:
        return interval
    try:
        return Interval(whole_milliseconds(interval.start - lookback), interval.end)
    except OverflowError:
        raise IntergiroValueError("`lookback` reaches further back than the calendar") from None


def read_instant(name: str, value: Any) -> datetime:
    """An instant that was stored: aware, in UTC, in whole milliseconds.

    :raises IntergiroValueError: names what it is called.
    """
    return _instant(name, value)


def _check_lookback(lookback: Any) -> None:
    if lookback is None:
        return
    if not isinstance(lookback, timedelta) or lookback < timedelta(0):
        raise IntergiroValueError(
            f"`lookback` has to be a timedelta that is not negative, such as timedelta(days=3), not {lookback!r}"
        )


def _instant(name: str, value: Any) -> datetime:
    """One bound as an aware datetime in UTC, cut to the millisecond."""
    if isinstance(value, int) and 10_000_000 <= value <= 99_999_999:
        value = str(value)  # Jinja's native rendering makes an integer of 20260131
    if isinstance(value, str):
        value = _parse(name, value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise IntergiroValueError(
            f"`{name}` has to be an aware datetime or a str, {_EXAMPLE}, not {type(value).__name__}"
        )
    if value.utcoffset() is None:
        raise IntergiroValueError(
            f"`{name}` is {value.isoformat()}, a time without a time zone: add one, such as +00:00 or Z, or "
            "give a bare date for 00:00 UTC"
        )
    try:
        return whole_milliseconds(value.astimezone(UTC))
    except OverflowError:
        raise IntergiroValueError(f"`{name}` lies outside the calendar once it is in UTC") from None


def whole_milliseconds(instant: datetime) -> datetime:
    """The moment without what is finer than the bank's own times."""
    # A plain datetime, whatever subclass came in, so that comparing a million times costs what it should.
    return datetime(
        instant.year, instant.month, instant.day, instant.hour, instant.minute, instant.second,
        instant.microsecond // 1000 * 1000, tzinfo=UTC,
    )  # fmt: skip


def _parse(name: str, value: str) -> date | datetime:
    text = value.strip()
    if text.lower() in _NOTHING:
        raise IntergiroValueError(
            f"`{name}` is the text {value!r}: its template found no value. A run that was started by hand or by "
            "an asset may have no logical_date and no data interval in Airflow 3; fall back on `dag_run.run_after`. "
            "To pull without bounds, leave both out"
        )
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise IntergiroValueError(f"`{name}` is {value!r}, which is no date or time in ISO 8601, {_EXAMPLE}") from None


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
            "the list holds a record without a `created_at` that can be read as a time, so it cannot be told "
            "whether it lies between `created_from` and `created_to`: pull this endpoint without them"
        )
    return value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
