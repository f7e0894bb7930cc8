# SPDX-License-Identifier: Apache-2.0
"""The report of the storms: a few lines at the terminal, and the page `docs/storms.md`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from scripts.services import program
from scripts.storm_figures import Figures, Plan, Span

PACKAGES = {
    "Airflow": "apache-airflow",
    "task SDK": "apache-airflow-task-sdk",
    "Celery provider": "apache-airflow-providers-celery",
    "Celery": "celery",
    "airflow-provider-intergiro": "airflow-provider-intergiro",
}

COLUMNS = (
    "storm",
    "tasks",
    "failed",
    "logins",
    "expiries",
    "refreshes",
    "early",
    "re-used",
    "refused",
    "401s",
    "waited: calls",
    "median",
    "longest",
    "others: calls",
    "median",
    "longest",
    "total",
    "load",
)


def describe(figures: Figures) -> str:
    """Return a storm's figures as a few lines."""
    lines = [
        f"  {figures.plan.name}: {meaning(figures.plan)}",
        f"    tasks      {figures.plan.tasks}, {figures.failed} failed; {figures.calls} calls from {figures.processes} "
        f"processes on {figures.hosts} host(s) in {figures.wall:.0f} s, load {figures.load:.1f}",
        f"    session    logins {figures.logins}, expiries {figures.expiries}, refreshes {figures.refreshes}: early "
        f"{figures.early}, re-used {figures.reused}, refused {figures.refused}; log lines of renewals {figures.told}",
        f"    calls      that waited {_span(figures.waiting)}; first of a task {_span(figures.first)}; others "
        f"{_span(figures.others)}",
        "    searched   " + ", ".join(f"{number:,} {what}" for what, number in figures.searched.items()),
    ]
    lines += [f"    LEAK       {place}" for place in figures.leaks]
    lines += [f"    ODD        {number} x {text}" for text, number in sorted(figures.oddities.items())]
    lines += [f"    MISSED     {goal}" for goal in figures.missed]
    return "\n".join(lines)


def meaning(plan: Plan) -> str:
    """Return in words what a storm is."""
    words = {
        "cold": "no session yet",
        "expired": "a session whose access token has expired",
        "over": "a session that has ended",
    }[plan.begin]
    parts = [words]
    if plan.deferred:
        parts.append(f"{plan.deferred} of the tasks are deferred to the triggerer")
    if plan.sessions_end:
        parts.append(f"each session ends after {plan.session_life:g} s")
    if plan.lock:
        parts.append(f"distributed lock in {'Redis' if plan.lock == 'redis' else 'PostgreSQL'}")
    if plan.calm:
        parts.append("no token expires, for comparison")
    return "; ".join(parts)


def report(found: Mapping[str, Sequence[Figures]], slots: int, load: Sequence[float]) -> str:
    """Return the page. `load` is the machine's before the first storm."""
    figures = [each for group in found.values() for each in group]
    missed = sorted({goal for each in figures for goal in each.missed})
    searched = figures[-1].searched if figures else {}
    return "\n".join(
        [
            "# Storms: one session, hundreds of tasks",
            "",
            *_in_short(figures),
            "`make storms` writes this page. It takes half an hour, and needs `redis-server` and PostgreSQL's "
            "`initdb`.",
            "",
            "A *storm* is one run of a DAG in a real Airflow with API server, scheduler, DAG processor and triggerer. "
            "The bank is the [sandbox](reference/sandbox.md), which enforces the bank's session rules. "
            f"{slots} tasks run at the same time. Each task is its own process and sends {Plan.calls} requests in "
            f"{Plan.seconds:g} s through `IntergiroHook`. The access token is valid for {Plan.access_token_life:g} s "
            "instead of 15 minutes, so one storm has as many expiries as a whole night.",
            "",
            "With Celery there are two workers. Each has its own directory for lock files, as if they were on two "
            "hosts.",
            "",
            "The columns are explained [below](#columns).",
            "",
            *_tables(found),
            "## Columns",
            "",
            "| column | meaning |",
            "| --- | --- |",
            "| expiries | access tokens that expired before the storm's last call |",
            "| early, re-used | refreshes that the bank refuses: *early*, the token has not expired; *re-used*, the "
            "refresh token was used before |",
            "| refused | refreshes refused for another reason: the session has ended |",
            "| 401s | responses with status 401: to calls with an expired token, and to the check before each "
            "renewal |",
            "| waited | calls that got a 401, and first calls of tasks without a session: number, median and longest "
            "time in seconds |",
            "| others | all other calls, in the same units; without the first call of each task, which also reads the "
            "connection and the session |",
            "| total | seconds from the trigger of the run to its end, including Airflow's own work |",
            "| load | load average of the machine in the last minute of the storm; above the number of cores, "
            "processes wait for a CPU |",
            "",
            "## Goals",
            "",
            "* No task fails or is retried.",
            "* One login per session of the bank.",
            "* No refresh is early or uses an old token. The bank refuses a refresh only at the end of a session.",
            "* The logs have one INFO line per renewal and no warnings. The exception is a login soon after another "
            "login, which logs a warning. The storm `ending` has many of these.",
            "* No process listens on an address other than loopback.",
            "* No token and no API key is found in the logs and files below `AIRFLOW_HOME`, in any table of the "
            "metadata database, in Redis, or in the rows of running triggers. "
            + (", ".join(f"{number:,} {what}" for what, number in searched.items()) if searched else "All of them")
            + " were searched after the last storm.",
            "",
            "Speed is measured, but is not a goal.",
            "",
            *(["**Missed:** " + "; ".join(missed)] if missed else ["All goals were met."]),
            "",
            "## Measured on",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}, load before the first storm {load[0]:.1f}",
            "",
            *(f"- {name} {found_version}" for name, found_version in versions().items()),
            "",
        ]
    )


def _in_short(figures: Sequence[Figures]) -> list[str]:
    """Return what all storms together show."""
    stormy = [each for each in figures if not each.plan.calm]
    calm = [each for each in figures if each.plan.calm]
    if not stormy:
        return []
    tasks, failed = sum(each.plan.tasks for each in stormy), sum(each.failed for each in stormy)
    return [
        f"**In short**: {tasks:,} tasks in {len(stormy)} storms, {failed} failed. "
        f"{sum(each.logins for each in stormy)} logins, and {sum(each.refreshes for each in stormy)} refreshes for "
        f"{sum(each.expiries for each in stormy)} expiries; {sum(each.early + each.reused for each in stormy)} "
        "refreshes were early or used an old token.",
        "",
        f"* Calls that had to wait for a renewal took {max(each.waiting.median for each in stormy):.1f} s (median of "
        f"the slowest storm), and at most {max(each.waiting.longest for each in stormy):.1f} s.",
        f"* All other calls took {_milliseconds(stormy)} ms (median of the slowest storm)"
        + (f", and {_milliseconds(calm)} ms (median) without expiries." if calm else "."),
        "",
    ]


def _milliseconds(figures: Sequence[Figures]) -> str:
    return f"{1000 * max(each.others.median for each in figures):.0f}"


def _tables(found: Mapping[str, Sequence[Figures]]) -> list[str]:
    lines = []
    for title, group in found.items():
        lines += [f"## {title}", "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
        for each in group:
            plan = each.plan
            lines.append(
                _row(
                    [
                        f"`{plan.name}`: {meaning(plan)}",
                        *map(str, (plan.tasks, each.failed, each.logins, each.expiries, each.refreshes)),
                        *map(str, (each.early, each.reused, each.refused, each.unauthorized)),
                        *_seconds(each.waiting),
                        *_seconds(each.others),
                        f"{each.wall:.0f}",
                        f"{each.load:.1f}",
                    ]
                )
            )
        lines.append("")
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(span: Span) -> list[str]:
    if not span.number:
        return ["0", "", ""]
    return [f"{span.number:,}", f"{span.median:.3f}", f"{span.longest:.3f}"]


def _span(span: Span) -> str:
    return f"{span.number} (median {span.median:.3f} s, longest {span.longest:.3f} s)" if span.number else "0"


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    for name, command in {
        "Redis": shutil.which("redis-server"),
        "PostgreSQL": program("postgres", "/usr/lib/postgresql/*/bin"),
    }.items():
        if command:
            done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=10, check=False)
            words = done.stdout.replace("v=", "").split()
            found[name] = next((word for word in words if word[0].isdigit()), "?")
    return found
