# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed or paused while they renew: the small version of `make crashes`.

Real processes, real Variables, and shortened times. `crash_checks` defines what each fault may cost.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.session.crash_campaign import Campaign, Record, campaign, let_readers_read
from tests.integration.session.crashes import Case, Start
from tests.integration.session.services import Postgres, Redis
from tests.integration.session.steps import Position, Strike

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AT_A_TIME = 10


@pytest.fixture(scope="module")
def fleets(
    airflow_db: Path, tmp_path_factory: pytest.TempPathFactory, redis_server: Redis, postgres_server: Postgres
) -> Iterator[Campaign]:
    locks = {"redis": redis_server.connection_json(), "postgres": postgres_server.connection_json()}
    let_readers_read(airflow_db)
    with campaign(AT_A_TIME, tmp_path_factory.mktemp("fleets"), locks) as running:
        yield running


def killed(start: Start, *points: tuple[str, int, Position], lock: str = "") -> list[Case]:
    return [
        Case(start, lock=lock, strike=Strike(step, nth, position, signal.SIGKILL)) for step, nth, position in points
    ]


KILLS = [
    *killed(
        "cold",
        ("acquire locks", 1, "after"),
        ("write lease", 1, "during"),
        ("write lease", 1, "after"),
        ("write logins", 1, "during"),
        ("write logins", 1, "after"),
        ("log in", 1, "during"),
        ("log in", 1, "after"),
        ("write session", 1, "during"),
        ("write session", 1, "after"),
    ),
    *killed(
        "expired",
        ("read lease", 2, "after"),
        ("probe", 1, "during"),
        ("refresh", 1, "before"),
        ("refresh", 1, "during"),
        ("refresh", 1, "after"),
        ("write session", 1, "during"),
        ("write session", 1, "after"),
    ),
    *killed(
        "ended",
        ("refresh", 1, "after"),
        ("write logins", 1, "after"),
        ("log in", 1, "before"),
        ("log in", 1, "after"),
        ("write session", 1, "during"),
    ),
    *killed("expired", ("probe", 1, "after"), ("refresh", 1, "after"), lock="redis"),
    *killed("expired", ("write lease", 1, "after"), ("write session", 1, "before"), lock="postgres"),
    replace(killed("expired", ("refresh", 1, "after"))[0], world="revokes"),
    replace(killed("expired", ("refresh", 1, "after"))[0], world="works"),
]


def check(records: list[Record]) -> None:
    assert {r.where: r.violations for r in records if r.violations} == {}
    assert [r.where for r in records if not r.struck] == []


def test_a_killed_renewal_costs_no_more_than_is_stated(fleets: Campaign) -> None:
    records = fleets.all(KILLS)

    check(records)
    # A counted loss shows that the kills hit the intended points.
    costly = {(r.start, r.step, r.position) for r in records if r.logins}
    assert ("expired", "refresh", "after") in costly
    assert ("cold", "log in", "after") in costly


def stopped(start: Start, *points: tuple[str, int, Position]) -> list[Case]:
    return [Case(start, strike=Strike(step, nth, position, signal.SIGSTOP)) for step, nth, position in points]


STOPS = [
    *stopped(
        "cold",
        ("write lease", 1, "after"),
        ("write logins", 1, "after"),
        ("log in", 1, "after"),
        ("write session", 1, "before"),
        ("write session", 1, "after"),
    ),
    *stopped(
        "expired",
        ("write lease", 1, "before"),
        ("probe", 1, "after"),
        ("refresh", 1, "after"),
        ("read session", 4, "after"),
        ("write session", 1, "after"),
    ),
]


def test_a_worker_that_stands_still_for_too_long_and_goes_on_overwrites_no_newer_session(fleets: Campaign) -> None:
    check(fleets.all(STOPS))
