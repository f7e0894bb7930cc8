# SPDX-License-Identifier: Apache-2.0
"""The inequalities between the timings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from intergiro_provider.session.timings import Timings

TIMINGS = Timings(settle_lease=2.5)
"""Timings whose sums are exact in floating point."""


def test_lease_writes_to_the_database_may_take_any_time() -> None:
    assert Timings(lease_write=math.inf).lease_write == math.inf


# "critical >": otherwise each renewal of an ended session would wait, exceed its time, and start again.
@pytest.mark.parametrize(
    ("field", "least", "too_small", "rule"),
    [
        ("settle_lease", 2.25, 2.0, "settle_lease > lease_round"),
        ("lease_round", 0.8, 0.75, "lease_write ≤ lease_round"),
        ("takeover", 146.0, 145.75, "takeover ≥ critical"),
        ("settle_session", 20.25, 20.0, "settle_session > call"),
        ("critical", 39.75, 39.5, "critical > settle_lease"),
        ("wait", 152.75, 152.5, "wait > takeover"),
        ("reserve", 1.0, 0.75, "reserve ≥ poll"),
    ],
)
def test_a_time_that_is_too_short_is_refused(field: str, least: float, too_small: float, rule: str) -> None:
    replace(TIMINGS, **{field: least})
    with pytest.raises(ValueError, match=rule):
        replace(TIMINGS, **{field: too_small})
