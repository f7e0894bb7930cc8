# SPDX-License-Identifier: Apache-2.0
"""Pulling in increments: each begins where the one before it ended, at the watermark."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.bounds import Interval, format_instant, look_back, read_instant
from intergiro_provider.pull.checkpoint import STILL_FILLING

if TYPE_CHECKING:
    from intergiro_provider.pull.manifest import Manifest

STATE_KEY = "intergiro_created_to"
"""Where the state of an asset holds the watermark, an instant in ISO 8601."""


def reached(interval: Interval, asked_at: datetime) -> str:
    """The watermark after an interval was pulled: its end, unless that is too young to be sure of.

    :param asked_at: when the pull began. What the bank lists late, or with a clock behind ours, comes with the next
        increment, which begins so much earlier.
    """
    return format_instant(min(interval.end, asked_at - STILL_FILLING))


def increment(
    asked: Interval, watermark: datetime | None, former: Manifest | None, lookback: timedelta | None = None
) -> Interval:
    """What to pull now.

    :param asked: its end is the increment's; its beginning that of the first one.
    :param watermark: up to where all is pulled; None: nothing is.
    :param former: the result that is at the target. Made up to the same instant, it is pulled again as it was: this is
        a second run of its task.
    :param lookback: moves the beginning back.
    :raises IntergiroValueError: the increment lies before the watermark, or would replace another one.
    """
    if former is not None and former.created_to == asked.created_to and former.created_from is not None:
        return Interval(read_instant("created_from", former.created_from), asked.end)
    if watermark is None:
        return look_back(asked, lookback)
    if watermark >= asked.end:
        raise IntergiroValueError(
            f"`watermark`: all up to {format_instant(watermark)} is pulled already, and `created_to` is "
            f"{asked.created_to}. To pull an interval again, run its task again with the `path` that it had, or leave "
            "`watermark` out"
        )
    if former is not None and former.rows:
        raise IntergiroValueError(
            f"`path` holds another increment (up to {former.created_to}), which this one would replace: with "
            "`watermark` each run needs a `path` of its own, such as s3://…/{{ ts_nodash }}"
        )
    return look_back(Interval(watermark, asked.end), lookback)
