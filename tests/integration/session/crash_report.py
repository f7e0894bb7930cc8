# SPDX-License-Identifier: Apache-2.0
"""The page that tells what a crash campaign has measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from tests.integration.session.crash_campaign import Record

HEAD = """# Killed while renewing

A process that renews the session is killed with `kill -9` at one step of the renewal. Two other processes must
continue: one that has used the session before, and one that starts on the same host. Each row of the tables was
measured with real processes, Airflow's Variables (SQLite, direct access), lock services, and HTTP requests to a
sandbox bank.

After each kill the campaign checks:

* Each process works again, without anyone's help.
* There is an extra login only if the bank had issued tokens that the killed process had not stored yet.
* No refresh is early. A used refresh token is sent only if its rotation was lost, and only once.
* An older session never replaces the stored one, and the stored one works in the end.
* The login history holds every login, and at most one login that was entered but not made.
* The next renewal is a single refresh.

`make crashes` writes this page. It takes a quarter of an hour and fails if a check fails. `make test` runs a small
part: `tests/integration/session/test_crashes.py`.
"""

SHRUNK = """
The times of the protocol are shorter than in production: a lease holder counts as dead after {takeover} s instead of
150 s.

* *killed*: before or after a step, or during it: between a write and its commit, or while the bank handles a request.
* *logins*: extra logins over all kills of the row, beyond those that the renewal needs anyway.
* *used token refused*, *session over*: refused refreshes, by reason.
* *went on*: seconds from the kill to the first response that another process got: median; longest.
"""

STARTS = {
    "cold": "there is no session: one login",
    "expired": "the access token has expired: one refresh",
    "ended": "the session has ended: a refused refresh, one login",
}
ORDER = (
    *("look", "take locks", "read session", "confirm absent session", "read lease", "confirm absent lease"),
    *("write lease", "sleep", "probe", "refresh", "read logins", "confirm absent logins", "write logins", "log in"),
    *("write session", "release locks"),
)
WORLDS = {"refused": "", "revokes": " (re-use ends the session)", "works": " (a used token still works)"}


def page(sections: dict[str, list[Record]], left_out: dict[str, int], takeover: float) -> str:
    """The page.

    :param sections: records by the version of Airflow.
    :param left_out: points for which there was no time, by the version of Airflow.
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
    parts.append("\n## With the times of production\n\n")
    for version, records in sections.items():
        if real := [record for record in records if record.real and record.struck]:
            parts.append(f"On Airflow {version}; each row is one kill.\n\n")
            parts.append(_table(real, lambda record: (record.start + ": " + record.step, record.position)))
    return "".join(parts)


def _summary(sections: dict[str, list[Record]], left_out: dict[str, int]) -> Iterable[str]:
    yield "\n| Airflow | kills | with real times | points | out of time | extra logins | most by one kill "
    yield "| violations |\n"
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
    if missed:
        yield f"\nNot counted: {missed} fleets whose renewal ended without coming by the point meant for the kill.\n"


def _table(records: list[Record], by: Callable[[Record], Any] = lambda r: (r.step, r.position)) -> str:
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in records:
        groups[by(record)].append(record)
    lines = [
        "| killed | kills | logins | used token refused | session over | went on, s |",
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
    """Where in a renewal the step is; those of the real times stay as they are."""
    names = [name for name in ORDER if step == name]
    return (ORDER.index(names[0]) if names else -1, ("before", "during", "after").index(position) if names else 0)
