# SPDX-License-Identifier: Apache-2.0
"""The plan of a storm, its measurements, and the goals that the session protocol promises."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Literal

#: How a storm begins: without a session; with one whose access token has expired; with one that is over.
Begin = Literal["cold", "expired", "over"]

#: Whole seconds in the tokens' own times, and the time between the bank's answer and ours.
SLACK = 2.0


@dataclass(frozen=True)
class Plan:
    """One storm.

    `workers` tasks in workers and `deferred` ones in the triggerer each make `calls` calls in about `seconds` seconds.
    Lives are in seconds; `lock` is the type of the service of the distributed lock; `hosts` is how many directories of
    lock files there must be at the least.
    """

    name: str
    workers: int
    deferred: int = 0
    begin: Begin = "cold"
    lock: Literal["", "redis", "postgres"] = ""
    hosts: int = 1
    calls: int = 6
    seconds: float = 4.0
    access_token_life: float = 6.0
    session_life: float = 3600.0
    max_logins_per_hour: int = 3

    @property
    def tasks(self) -> int:
        """How many tasks call the bank."""
        return self.workers + self.deferred

    @property
    def calm(self) -> bool:
        """Whether the access token outlives it: what the others are compared with."""
        return self.access_token_life >= 900

    @property
    def sessions_end(self) -> bool:
        """Whether sessions end during the storm."""
        return self.session_life < 3600


@dataclass(frozen=True)
class Call:
    """One call of one task: epoch seconds of its begin, seconds that it took, whether it met a 401."""

    at: float
    took: float
    renewed: bool
    first: bool

    @property
    def end(self) -> float:
        """Epoch seconds of its end."""
        return self.at + self.took


@dataclass(frozen=True)
class Span:
    """How long some calls took, in seconds."""

    number: int
    median: float
    longest: float

    @classmethod
    def of(cls, calls: Iterable[Call]) -> Span:
        """Sum up calls; zeros where there are none."""
        took = [call.took for call in calls]
        return cls(len(took), median(took), max(took)) if took else cls(0, 0.0, 0.0)


@dataclass
class Raw:
    """What was gathered of a storm.

    `told` log lines tell of a renewal, `warned` of them as a warning; `oddities` are other warnings and worse.
    `counters` says by how much the bank's have grown; `issued` holds the tokens that it has issued meanwhile.
    """

    counters: Mapping[str, int]
    issued: Sequence[str]
    states: Sequence[str]
    tries: Sequence[int]
    results: Sequence[Mapping[str, Any]]
    wall: float
    load: float
    told: int
    warned: int = 0
    oddities: Mapping[str, int] = field(default_factory=dict)
    leaks: Sequence[str] = ()
    searched: Mapping[str, int] = field(default_factory=dict)
    exposed: Sequence[str] = ()


@dataclass(frozen=True)
class Figures:
    """A storm in figures. Times are in seconds."""

    plan: Plan
    failed: int
    retried: int
    calls: int
    hosts: int
    processes: int
    logins: int
    refreshes: int
    early: int
    reused: int
    refused: int
    blocked: int
    expiries: int
    unauthorized: int
    told: int
    wall: float
    load: float
    waiting: Span
    first: Span
    others: Span
    oddities: Mapping[str, int]
    leaks: Sequence[str]
    searched: Mapping[str, int]
    missed: tuple[str, ...]


def sum_up(plan: Plan, raw: Raw) -> Figures:
    """Return a storm's figures, and in `missed` each goal that it has missed: nothing there depends on speed."""
    calls = [
        Call(at, took, renewed, first=place == 0)
        for result in raw.results
        for place, (at, took, renewed) in enumerate(result["calls"])
    ]
    lives = [claims for claims in map(claims_of, raw.issued) if claims is not None]
    began, ended = min((call.at for call in calls), default=0.0), max((call.end for call in calls), default=0.0)
    waiting = [call for call in calls if call.renewed or (call.first and _met_a_login(call, plan, lives))]
    rest = [call for call in calls if call not in waiting]
    counters = raw.counters
    figures = Figures(
        plan=plan,
        failed=sum(state not in ("success", "skipped") for state in raw.states),
        retried=sum(number > 1 for number in raw.tries),
        calls=len(calls),
        hosts=len({result["host"] for result in raw.results}),
        processes=len({(result["host"], result["process"]) for result in raw.results}),
        logins=counters["logins"],
        refreshes=counters["refreshes"],
        early=counters["refresh_early"],
        reused=counters["refresh_reused"],
        refused=counters["refresh_refused"],
        blocked=counters["fraud_blocks"] + counters["login_refused"],
        # The one that had expired before the storm is not among those that were issued during it.
        expiries=sum(life["exp"] < ended for life in lives) + (plan.begin != "cold"),
        unauthorized=counters["unauthorized"],
        told=raw.told,
        wall=raw.wall,
        load=raw.load,
        waiting=Span.of(waiting),
        first=Span.of(call for call in rest if call.first),
        others=Span.of(call for call in rest if not call.first),
        oddities=raw.oddities,
        leaks=raw.leaks,
        searched=raw.searched,
        missed=(),
    )
    missed = [text for text, holds in goals(figures, raw, lives, ended - began).items() if not holds]
    return Figures(**{**vars(figures), "missed": tuple(missed)})


def goals(figures: Figures, raw: Raw, lives: Sequence[Mapping[str, Any]], lasted: float) -> dict[str, bool]:
    """Return what has to hold of a storm, and whether it does. `lasted` is from the first call to the last."""
    plan = figures.plan
    first_logins = 0 if plan.begin == "expired" else 1
    seen_ends = (plan.begin == "over") + figures.logins - first_logins
    logged_in_at = [life["iat"] for life in _first_of_each_session(lives)][-figures.logins or len(lives) :]
    gaps = [later - former for former, later in pairwise(logged_in_at)]
    return {
        "no task failed": figures.failed == 0 and len(raw.states) >= plan.tasks,
        "no task was tried twice": figures.retried == 0,
        "each task made all its calls": figures.calls == plan.tasks * plan.calls,
        "it took place on all hosts": figures.hosts >= plan.hosts,
        "the access token expired under the tasks": plan.calm or figures.expiries >= 1,
        "no refresh was early": figures.early == 0,
        "no refresh token was used twice": figures.reused == 0,
        "no login was refused": figures.blocked == 0,
        "no expiry was refreshed twice": figures.refreshes <= figures.expiries,
        "one login for each life of a session": figures.logins == first_logins
        if not plan.sessions_end
        else first_logins < figures.logins <= first_logins + (lasted + SLACK) / plan.session_life
        and all(gap >= plan.session_life - SLACK for gap in gaps),
        "a refresh was refused only to tell of a session's end": figures.refused == seen_ends,
        "the logs tell of each renewal once": figures.told == figures.logins + figures.refreshes,
        # Sessions live an hour at the bank, and seconds in a storm: a login that comes so soon is worth a warning.
        "a warning for each login soon after another": raw.warned == seen_ends,
        "nothing odd in the tasks' logs": not figures.oddities,
        "no token or key where it must not be": not figures.leaks and min(figures.searched.values(), default=0) > 0,
        "the triggers' rows were searched, too": not plan.deferred or "values of trigger rows" in figures.searched,
        "nothing listens beyond loopback": not raw.exposed,
    }


def claims_of(token: str) -> dict[str, Any] | None:
    """Return what an access token says of itself; None for a refresh token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    return claims


def _first_of_each_session(lives: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for life in lives:
        found.setdefault(life["sid"], life)
    return list(found.values())


def _met_a_login(call: Call, plan: Plan, lives: Sequence[Mapping[str, Any]]) -> bool:
    """Whether this first call of a task had to wait because there was no session at all."""
    return plan.begin == "cold" and bool(lives) and call.at < lives[0]["iat"] + 1 and call.end > lives[0]["iat"]
