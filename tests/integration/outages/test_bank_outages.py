# SPDX-License-Identifier: Apache-2.0
"""The bank is down, slow, faulty, or refuses the key."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.outages.table import Row
from tests.integration.outages.world import SHORT, UNREACHABLE, World

pytestmark = pytest.mark.integration

REFRESH = "/v3/auth/refresh"
LOGIN = "/v3/auth/login"
DATE = 1.2
"""The largest error of a Date header in seconds, because it has no fractions."""


def wait_for_the_next_attempt() -> None:
    """Wait until the tasks send requests again to a bank that has failed."""
    time.sleep(SHORT.bank_pause + DATE)


def test_bank_down(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    world.timings(UNREACHABLE)
    with world.line.being("refuse"):
        world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


def test_bank_down_at_the_login(world: World, row: Row) -> None:
    world.timings(UNREACHABLE)
    with world.line.being("refuse"):
        world.check(row, world.attempt())
    world.timings(SHORT)
    wait_for_the_next_attempt()
    world.succeed()
    world.check_logins(row, own=1)


def test_bank_slow(world: World, row: Row) -> None:
    world.bank.fault("latency", seconds=0.5)
    world.check(row, world.attempt())
    world.bank.expire_access_tokens()
    world.check(row, world.attempt())
    world.check_logins(row, own=1)
    assert world.bank.counters().refreshes == 1


def ill_refresh(world: World, row: Row, kind: str, **params: Any) -> None:
    """Let the refresh fail in this way during a task, and work afterwards."""
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    world.bank.fault(kind, path=REFRESH, **params)
    world.check(row, world.attempt())
    world.bank.clear_faults()
    world.timings(SHORT)
    wait_for_the_next_attempt()
    world.succeed()
    world.check_logins(row)
    assert world.bank.counters().refreshes == 1


def test_refresh_hangs(world: World, row: Row) -> None:
    world.succeed()
    world.timings(replace(SHORT, call=2.0))
    ill_refresh(world, row, "hang", seconds=120.0)


def test_refresh_429(world: World, row: Row) -> None:
    ill_refresh(world, row, "rate_limit", times=2, retry_after=1)


def test_refresh_503(world: World, row: Row) -> None:
    ill_refresh(world, row, "status", status=503, body="html")


def test_refresh_503_once(world: World, row: Row) -> None:
    ill_refresh(world, row, "status", status=503, times=1)


def test_refresh_html(world: World, row: Row) -> None:
    ill_refresh(world, row, "response", body="<html>", headers={"content-type": "text/html"})


@pytest.mark.parametrize(("kind", "params"), [("lose_response", {}), ("garbled", {"how": "html"}), ("drop_body", {})])
def test_refresh_answer_lost(world: World, row: Row, kind: str, params: dict[str, Any]) -> None:
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    world.bank.fault(kind, path=REFRESH, times=1, **params)
    world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


@pytest.mark.parametrize("sandbox", [{"old_refresh_token": "works"}], indirect=True)
def test_refresh_answer_lost_and_forgiven(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    world.bank.fault("lose_response", path=REFRESH, times=1)
    # The lost pair is the second one of the session. A refresh requires that the first has expired.
    world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


def ill_login(world: World, row: Row, kind: str, **params: Any) -> None:
    """Let the login fail in this way, and work afterwards."""
    world.bank.fault(kind, path=LOGIN, times=1, **params)
    world.check(row, world.attempt())
    wait_for_the_next_attempt()
    world.succeed()
    world.check_logins(row, own=1)
    assert world.bank.counters().by_path[f"POST {LOGIN}"] == 2


@pytest.mark.exhaustive
def test_login_429(world: World, row: Row) -> None:
    ill_login(world, row, "rate_limit", retry_after=1)


def test_login_503(world: World, row: Row) -> None:
    ill_login(world, row, "status", status=503, body="html")


@pytest.mark.exhaustive
def test_login_html(world: World, row: Row) -> None:
    ill_login(world, row, "response", body="<html>", headers={"content-type": "text/html"})


def test_login_answer_lost(world: World, row: Row) -> None:
    ill_login(world, row, "lose_response")


def test_key_wrong(world: World, row: Row) -> None:
    world.connect(password="5a4db0c5-0000-4000-8000-00000badc0de")
    world.check(row, world.attempt())
    world.check(row, world.attempt())
    assert world.bank.counters().login_refused == 1
    world.connect()
    world.succeed()
    world.check_logins(row, own=1)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sandbox", [{"frozen": True}], indirect=True)
def test_key_frozen(world: World, row: Row) -> None:
    world.extra["api"] = "2d"
    world.connect()
    world.check(row, world.attempt())
    world.check(row, world.attempt())
    assert world.bank.counters().login_refused == 1
    world.bank.set(frozen=False)
    time.sleep(SHORT.takeover + DATE)
    world.succeed()
    world.check_logins(row, own=1)


@pytest.mark.parametrize("sandbox", [{"login_limit": 1}], indirect=True)
def test_fraud_block(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    world.bank.end_sessions()
    world.check(row, world.attempt())
    world.check(row, world.attempt())
    world.check_logins(row)
    assert world.bank.counters().fraud_blocks == 1


def test_sessions_end_again_and_again(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    for _ in range(2):
        world.bank.end_sessions()
        world.succeed()
    world.bank.end_sessions()
    for _ in range(2):
        world.check(row, world.attempt())
    world.check_logins(row)
    assert world.bank.counters().refresh_refused == 3


@pytest.mark.parametrize("sandbox", [{"date_skew": 3600.0}, {"date_skew": -3600.0}], indirect=True)
def test_clocks_apart(world: World, row: Row) -> None:
    world.check(row, world.attempt())
    world.bank.expire_access_tokens()
    world.check(row, world.attempt())
    world.bank.end_sessions()
    world.check(row, world.attempt())
    world.check_logins(row, own=2)
    assert world.bank.counters().refreshes == 1


def test_clocks_of_workers_apart(world: World, row: Row) -> None:
    now = time.time
    for off in (3600.0, 0.0, -3600.0, 3600.0):
        world.monkeypatch.setattr(time, "time", lambda off=off: now() + off)
        world.check(row, world.attempt())
        world.bank.expire_access_tokens()
    world.bank.end_sessions()
    world.check(row, world.attempt())
    world.check_logins(row, own=2)
    assert world.bank.counters().refreshes == 3


@pytest.mark.parametrize(
    "sandbox", [{"access_token_format": "opaque"}, {"access_token_format": "jwt_without_exp"}], indirect=True
)
def test_tokens_without_a_date(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    world.check(row, world.attempt())
    world.check_logins(row)
    assert world.bank.counters().refreshes == 1
