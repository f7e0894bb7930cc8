# SPDX-License-Identifier: Apache-2.0
"""The page with the results of a crash campaign."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from tests.integration.session.crash_campaign import Record

HEAD = """# Killed while renewing

This page shows what a killed task costs: the campaign kills a process with `kill -9` while it renews the session. Two
other processes must then continue. One of them has used the session before, and one starts on the same host. The
processes, the HTTP requests to the sandbox bank, Airflow's Variables (SQLite, direct access) and the lock services are
real.

After each kill the campaign checks:

* Both other processes work again without manual action.
* There is an extra login only if the bank had issued tokens that the killed process had not stored yet.
* No refresh is early. A used refresh token is sent only if the tokens of its refresh were lost, and only once.
* An older token pair never replaces the stored one. The pair that is stored at the end works.
* The login history contains every login. It contains at most one login that was not made.
* The next renewal is a single refresh.

`make crashes` writes this page. It takes a quarter of an hour and fails if a check fails. `make test` runs a small
part: `tests/integration/session/test_crashes.py`.
"""

SHRUNK = """
In these tables the waiting times of the protocol are shorter than in production: other processes acquire the lease of a
killed process after {takeover} s instead of 150 s. The [last table](#with-production-times) shows kills with the
times of production.

* *killed*: the point of the kill. *During* means between a write and its commit, or while the bank handles a request.
  *Look* is the first read of the stored session, without a lock. *Logins* is the login history.
* *extra logins*: logins of all kills in the row, beyond those that the renewal needs without a kill.
* *used token*, *session ended*: the number of refreshes that the bank refused for this reason.
* *recovery*: seconds from the kill to the first response that another process got (median; longest). It is negative if
  that response arrived before the kill.
"""

STARTS = {
    "cold": "there is no session, which takes one login",
    "expired": "the access token has expired, which takes one refresh",
    "ended": "the session has ended, which takes a refused refresh and one login",
}
ORDER = (
    *("look", "acquire locks", "read session", "confirm absent session", "read lease", "confirm absent lease"),
    *("write lease", "sleep", "probe", "refresh", "read logins", "confirm absent logins", "write logins", "log in"),
    *("write session", "release locks"),
)
WORLDS = {
    "refused": "",
    "revokes": " (re-use of a refresh token ends the session)",
    "works": " (a used refresh token still works)",
}


def page(sections: dict[str, list[Record]], left_out: dict[str, int], takeover: float) -> str:
    """Return the page.

    :param sections: the records, by the version of Airflow.
    :param left_out: the number of points for which there was no time, by the version of Airflow.
    """
    parts = [HEAD, *_summary(sections, left_out), SHRUNK.format(takeover=takeover)]
    everything = [record for records in sections.values() for record in records if record.struck and not record.real]
    for start, meaning in STARTS.items():
        parts.append(f"\n## {start.capitalize()}: {meaning}\n\n")
        mine = [record for record in everything if record.start == start]
        columns = sorted({(record.world, record.lock) for record in mine}, key=lambda c: (c[0] != "refused", c))
        for world, lock in columns:
            parts.append(f"{f'Distributed lock: {lock}' if lock else 'No distributed lock'}{WORLDS[world]}.\n\n")
            parts.append(_table([record for record in mine if (record.world, record.lock) == (world, lock)]))
    parts.append("\n## With production times\n\n")
    for version, records in sections.items():
        if real := [record for record in records if record.real and record.struck]:
            parts.append(f"On Airflow {version}; each row is one kill.\n\n")
            parts.append(_table(real, lambda record: (record.start + ": " + record.step, record.position)))
    return "".join(parts)


def _summary(sections: dict[str, list[Record]], left_out: dict[str, int]) -> Iterable[str]:
    everything = [record for records in sections.values() for record in records]
    logins = [record.logins for record in everything if record.struck]
    yield (
        f"\n**In short**: {len(logins)} kills cost {sum(logins)} extra logins, at most {max(logins, default=0)} per "
        f"kill. {sum(bool(record.violations) for record in everything)} trials failed a check.\n"
    )
    yield "\n| Airflow | kills | with production times | different points | points not tried | extra logins "
    yield "| most per kill | failed checks |\n"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    for version, records in sections.items():
        kills = [record for record in records if record.struck]
        points = {(r.start, r.world, r.lock, r.step, r.nth, r.position) for r in kills}
        logins = [record.logins for record in kills]
        violated = sum(bool(record.violations) for record in records)
        yield (
            f"| {version} | {len(kills)} | {sum(record.real for record in kills)} | {len(points)} "
            f"| {left_out[version]} | {sum(logins)} | {max(logins, default=0)} | {violated} |\n"
        )
    missed = sum(not record.struck for records in sections.values() for record in records)
    yield "\nA *point* is one position in one step of the renewal. Points were not tried if there was no time left.\n"
    if missed:
        yield f"{missed} more trials are not counted: the renewal ended before it reached the point of the kill.\n"


def _table(records: list[Record], by: Callable[[Record], Any] = lambda r: (r.step, r.position)) -> str:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[by(record)].append(record)
    lines = [
        "| killed | kills | extra logins | used token | session ended | recovery, s |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for (step, position), group in sorted(groups.items(), key=lambda item: _place(*item[0])):
        times = [record.went_on for record in group]
        lines.append(
            f"| {position} {step} | {len(group)} | {sum(r.logins for r in group)} | {sum(r.reused for r in group)} "
            f"| {sum(r.refused for r in group)} | {statistics.median(times):.1f}; {max(times):.1f} |"
        )
    return "\n".join(lines) + "\n\n"


def _place(step: str, position: str) -> tuple[int, int]:
    """Return the part of a renewal that a step belongs to. Steps with the timings of production are not changed."""
    names = [name for name in ORDER if step == name]
    return (ORDER.index(names[0]) if names else -1, ("before", "during", "after").index(position) if names else 0)
