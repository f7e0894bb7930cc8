# SPDX-License-Identifier: Apache-2.0
"""Every failure in a storm is a missed goal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from intergiro_provider.sandbox import tokens
from scripts.storm_figures import Plan, Raw, claims_of, sum_up
from scripts.storm_report import describe, report

BEGAN = 1_800_000_000.0
LIFE = 6.0
PLAN = Plan("cold", workers=2, calls=3, hosts=2, access_token_life=LIFE)


def issued(*at: float, session: str = "a", life: float = LIFE) -> list[str]:
    """Return the token pairs that the bank issues at these times."""
    found = []
    for moment in at:
        found.append(tokens.access_token("jwt", session=session, issued_at=moment, expires_at=moment + life))
        found.append(tokens.refresh_token(session=session))
    return found


def result(host: str, process: int, *calls: tuple[float, float, bool]) -> dict[str, Any]:
    return {"host": host, "process": process, "calls": [list(call) for call in calls]}


def counters(**changes: int) -> dict[str, int]:
    names = ("logins", "refreshes", "refresh_early", "refresh_reused", "refresh_refused", "fraud_blocks")
    return {**dict.fromkeys((*names, "login_refused", "unauthorized"), 0), "logins": 1, "refreshes": 1, **changes}


GOOD = Raw(
    counters=counters(unauthorized=2),
    issued=issued(BEGAN + 3, BEGAN + 12),
    states=["success"] * 4,
    tries=[1] * 4,
    results=[
        result("one", 1, (BEGAN, 3.2, False), (BEGAN + 4, 0.01, False), (BEGAN + 9.5, 2.6, True)),
        result("two", 1, (BEGAN + 5, 0.1, False), (BEGAN + 6, 0.02, False), (BEGAN + 10, 2.2, True)),
    ],
    wall=20.0,
    load=1.0,
    told=2,
    searched={"tokens": 4, "files": 10},
)


def test_a_storm_as_it_should_be() -> None:
    figures = sum_up(PLAN, GOOD)
    assert figures.missed == ()
    assert (figures.failed, figures.calls, figures.hosts, figures.processes) == (0, 6, 2, 2)
    assert (figures.logins, figures.refreshes, figures.expiries) == (1, 1, 1)
    assert (figures.waiting.number, figures.waiting.median, figures.waiting.longest) == (3, 2.6, 3.2)
    assert (figures.first.number, figures.first.longest) == (1, 0.1)
    assert (figures.others.number, figures.others.longest) == (2, 0.02)


@pytest.mark.parametrize(
    ("changes", "goal"),
    [
        ({"states": ["success", "failed", "success", "success"]}, "no task failed"),
        ({"states": ["success"]}, "no task failed"),
        ({"tries": [1, 1, 2, 1]}, "no task was tried twice"),
        ({"results": GOOD.results[:1]}, "each task made all its calls"),
        ({"results": [{**each, "host": "one"} for each in GOOD.results]}, "it took place on all hosts"),
        ({"issued": issued(BEGAN + 3, life=900)}, "the access token expired under the tasks"),
        ({"counters": counters(refresh_early=1)}, "no refresh was early"),
        ({"counters": counters(refresh_reused=1)}, "no refresh token was used twice"),
        ({"counters": counters(fraud_blocks=1)}, "no login was refused"),
        ({"counters": counters(login_refused=1)}, "no login was refused"),
        ({"counters": counters(refreshes=2), "told": 3}, "no expiry was refreshed twice"),
        ({"counters": counters(logins=2), "told": 3}, "one login for each life of a session"),
        ({"counters": counters(refresh_refused=1)}, "a refresh was refused only to tell of a session's end"),
        ({"told": 1}, "the logs tell of each renewal once"),
        ({"warned": 1}, "a warning for each login soon after another"),
        ({"oddities": {"warning: of something": 1}}, "nothing odd in the tasks' logs"),
        ({"leaks": ["xcom.value"]}, "no token or key where it must not be"),
        ({"searched": {"tokens": 0, "files": 10}}, "no token or key where it must not be"),
        ({"searched": {}}, "no token or key where it must not be"),
        ({"exposed": ["0.0.0.0:80"]}, "nothing listens beyond loopback"),
    ],
)
def test_what_goes_wrong_is_told(changes: dict[str, Any], goal: str) -> None:
    figures = sum_up(PLAN, replace(GOOD, **changes))
    assert goal in figures.missed
    assert goal in describe(figures)
    assert goal in report({"here": [figures]}, 8, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("begin", "logins", "refused", "good"),
    [
        ("expired", 0, 0, True),
        ("expired", 1, 1, False),
        ("over", 1, 1, True),
        ("over", 1, 2, False),
        ("over", 2, 2, False),
    ],
)
def test_a_warm_start_needs_only_the_login_that_an_ended_session_costs(
    begin: Any, logins: int, refused: int, good: bool
) -> None:
    changed = counters(logins=logins, refresh_refused=refused)
    raw = replace(GOOD, counters=changed, told=logins + 1, warned=logins)
    assert (sum_up(replace(PLAN, begin=begin), raw).missed == ()) is good


@pytest.mark.parametrize(
    ("second_at", "refused", "good"),
    [(BEGAN + 10.5, 1, True), (BEGAN + 10.5, 0, False), (BEGAN + 10.5, 2, False), (BEGAN + 5, 1, False)],
)
def test_a_login_before_the_session_has_ended_is_one_too_many(second_at: float, refused: int, good: bool) -> None:
    plan = replace(PLAN, session_life=7)
    raw = replace(
        GOOD,
        counters=counters(logins=2, refresh_refused=refused),
        issued=[*issued(BEGAN + 3), *issued(second_at, session="b")],
        told=3,
        warned=1,
    )
    assert (sum_up(plan, raw).missed == ()) is good


def test_an_ending_session_must_end() -> None:
    assert "one login for each life of a session" in sum_up(replace(PLAN, session_life=7), GOOD).missed


def test_deferred_tasks_have_triggers_whose_rows_are_searched() -> None:
    plan = replace(PLAN, workers=1, deferred=1)
    assert "the triggers' rows were searched, too" in sum_up(plan, GOOD).missed
    searched = {**GOOD.searched, "values of trigger rows": 4}
    assert sum_up(plan, replace(GOOD, searched=searched)).missed == ()


def test_the_page_shows_every_storm() -> None:
    good = sum_up(PLAN, GOOD)
    page = report({"LocalExecutor": [good, replace(good, plan=replace(PLAN, name="again"))]}, 8, (0.5, 0.5, 0.5))
    assert "`cold`" in page
    assert "`again`" in page
    assert "All goals were met." in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert {row.count("|") for row in rows} == {19}


def test_a_refresh_token_has_no_claims() -> None:
    access, refresh = issued(BEGAN)
    assert claims_of(refresh) is None
    assert claims_of(access) == {"sid": "a", "jti": claims_of(access)["jti"], "iat": BEGAN, "exp": BEGAN + LIFE}  # type: ignore[index]
