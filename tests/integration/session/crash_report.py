# SPDX-License-Identifier: Apache-2.0
"""The page that tells what a crash campaign has measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from tests.integration.session.crash_campaign import Record

HEAD = """# Killed while renewing

Each row below is measured: the process that renews a session is killed with `kill -9` at one step of the renewal,
and two others, one that has used the session before and one that starts on the same host, have to go on. Processes,
Airflow's Variables (SQLite, direct access), lock services and the HTTP calls to a sandbox bank are real; only the
killed process is rigged, from outside.

Every fleet is checked: each process is back at work without anybody's help; one login more than without a kill only
where the bank had given tokens that the killed process had not stored yet; no refresh before its time; a used refresh
token is presented only where its rotation was lost, and once; the stored session never becomes an older one, and works
in the end; the ledger holds every login, and at most one that was entered and not made; the renewal after that is one
refresh again.

`make crashes` repeats it and writes this page (about a quarter of an hour; it fails if anything was violated). A small
form is in `make test`: `tests/integration/session/test_crashes.py`.
"""

SHRUNK = """
The times of the protocol are shrunk: an owner of the lease counts as dead after {takeover} s instead of 150 s. "Before"
and "after" are the moments around a step; "during" is between sending a write and its commit, or while the bank is
working on a call. "Logins" are those beyond the ones that the renewal takes anyway, over all kills of the row; likewise
the refreshes that were refused because the token had been used, and because the session was over. "Went on" is the time
from the kill to the first answer that another process had: median, and longest.
"""

STARTS = {
    "cold": "there is no session: one login",
    "expired": "the access token has expired: one refresh",
    "ended": "the session has ended: a refused refresh, one login",
}
ORDER = (
    *("look", "take locks", "read session", "confirm absent session", "read lease", "confirm absent lease"),
    *("write lease", "sleep", "probe", "refresh", "read ledger", "confirm absent ledger", "write ledger", "log in"),
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
