# SPDX-License-Identifier: Apache-2.0
"""The logins that count, and the time of the next allowed login."""

from __future__ import annotations

import pytest

from intergiro_provider.session.budget import (
    CLOCK_SLACK,
    HOUR,
    PAUSE_SLACK,
    dated,
    known_logins,
    next_allowed,
    reserved,
)
from intergiro_provider.session.documents import Login, LoginHistory, TokenPair
from intergiro_provider.session.effects import Moment


def logins(*untils: float) -> list[Login]:
    return [Login(0.0, f"n{until}", until) for until in untils]


@pytest.mark.parametrize(
    ("counted", "most", "expected"),
    [
        ([], 1, None),
        ([10.0, 20.0], 3, None),
        ([20.0, 30.0, 10.0], 3, 10.0),
        # More than allowed: the limit may have been lowered.
        ([40.0, 10.0, 20.0, 30.0], 3, 20.0),
        ([40.0, 10.0, 20.0, 30.0], 1, 40.0),
    ],
)
def test_the_next_login_is_allowed_when_enough_count_no_more(
    counted: list[float], most: int, expected: float | None
) -> None:
    assert next_allowed(logins(*counted), most) == expected


def test_the_login_of_the_session_counts_once_as_the_bank_dated_it() -> None:
    pair = TokenPair("a", "r", 1, "n", login_at=50.0, login="of-session")
    other, reservation = Login(0.0, "other", 9.0), Login(49.0, "of-session", 9999.0)

    assert known_logins(LoginHistory((other, reservation)), pair) == (other, dated(50.0, "of-session"))
    assert known_logins(LoginHistory((other,)), pair) == (other, dated(50.0, "of-session"))
    assert known_logins(LoginHistory((other, reservation)), None) == (other, reservation)


@pytest.mark.parametrize(("exact", "slack"), [(True, PAUSE_SLACK), (False, CLOCK_SLACK)])
def test_a_reservation_counts_for_longer_where_the_clock_may_be_wrong(exact: bool, slack: float) -> None:
    assert reserved(Moment(100.0, exact), "n") == Login(100.0, "n", 100.0 + HOUR + slack)
