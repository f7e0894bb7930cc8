# SPDX-License-Identifier: Apache-2.0
"""Pull in increments: each begins at the watermark, where the last one ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.bounds import Interval, format_instant, look_back, read_instant
from intergiro_provider.pull.checkpoint import LATE_RECORDS

if TYPE_CHECKING:
    from intergiro_provider.pull.manifest import Manifest

STATE_KEY = "intergiro_created_to"
"""The key of the watermark in the state of an asset. The value is an instant in ISO 8601."""


def watermark_after(interval: Interval, began: datetime) -> str:
    """Return the watermark after a pull: the end of its interval, but not later than five minutes before it began.

    The bank may list a record late, or its clock may be behind ours. The next increment then pulls the record.

    :param began: when the pull began.
    """
    return format_instant(min(interval.end, began - LATE_RECORDS))


def next_increment(
    requested: Interval, watermark: datetime | None, previous: Manifest | None, lookback: timedelta | None = None
) -> Interval:
    """Return the interval to pull now.

    :param requested: the interval of the arguments. Its start applies to the first increment only.
    :param watermark: everything before this time is pulled; None: nothing is.
    :param previous: the result that is in the directory. If it has the same end, the task runs again, and its interval
        is pulled again.
    :param lookback: moves the start back.
    :raises IntergiroValueError: the interval lies before the watermark, or the pull would replace another increment.
    """
    if previous is not None and previous.created_to == requested.created_to and previous.created_from is not None:
        return Interval(read_instant("created_from", previous.created_from), requested.end)
    if watermark is None:
        return look_back(requested, lookback)
    if watermark >= requested.end:
        raise IntergiroValueError(
            f"`watermark`: everything before {format_instant(watermark)} is pulled already, and `created_to` is "
            f"{requested.created_to}. To pull an interval again, run its task again with the `path` that it had, or "
            "leave out `watermark`."
        )
    if previous is not None and previous.rows:
        raise IntergiroValueError(
            f"`path` holds another increment (up to {previous.created_to}), which this one would replace. With "
            "`watermark`, give each run its own `path`, such as s3://…/{{ ts_nodash }}."
        )
    return look_back(Interval(watermark, requested.end), lookback)
