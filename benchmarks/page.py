# SPDX-License-Identifier: Apache-2.0
"""``docs/benchmarks.md``: the goals, the figures, and what they mean."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.goals import Results, judged
from benchmarks.scenarios import OURS, OURS_1, PEERS, SCENARIOS, SOCKETS, SideBySide

TOP = """# Benchmarks

`make benchmarks` measures our pull beside what one would pick instead, and writes this page and its chart.

![Seconds and CPU of each puller](benchmarks.png)

{what} from `intergiro_provider.sandbox` in a process of its own,
its records serialised beforehand, to local files. {machine}.
Every ratio is of one run: compare seconds within a table, not between days or machines.

## Goals
"""

HOW = """
## How it is measured
- Each puller runs in a process of its own, all on the same Python; peers in environments of their own, pinned in
  `benchmarks/requirements-*.txt`. The clock starts when imports, start-up and the login are over, for all alike, and
  stops when the pull returns. CPU is the puller's in this time, user and system; the sandbox's stands beside it. Peak
  memory is the process's, with everything that it has imported.
- Runs take turns, and a figure is a median. Pullers that mostly wait run once.
- After each run the files are read back: a run that has not written every row exactly once is an error, not a figure.
- Ours is `IntergiroToObjectStorageOperator.execute`: hashes, manifest and fsync included. HttpHook and HttpOperator
  decode a page once, for its cursor, and write bodies as they came, which is less than most of their users do. Peers
  have a token that does not expire; none of them renews one.
- Loads run against a PostgreSQL of their own, without autovacuum, which has made a checkpoint before each run. Its CPU
  is that of all its processes. COPY fills a table with the columns, the key and the index of ours from a CSV that was
  written beforehand. dlt merges by `id` (delete-insert), with its fastest loader format. dlt's Arrow tables need code
  of the user's own: pyarrow guesses the types of JSON lines, and nested columns have to be turned into text.
- Connections are those on which the sandbox has seen a request. The bare sockets are nothing that anybody would use:
  they show what the sandbox itself can do.
"""

LEFT = """
`requests.Session` itself stands in the way: preparing a request, merging settings and handing the body over in pieces
of 10 KB cost more CPU for a page than all the rest. So a pull prepares its request once and sends it through the
session's own pool (`intergiro_provider/api/reader.py`), under the same authentication, retry rules, certificates and
proxies.

How many windows run side by side is found out as a pull goes (`intergiro_provider/pull/pace.py`). It starts with
one, goes to four and sixteen while the pages per second grow enough, and doubles after a step that was too large.
Without latency one or two are best: the work is then the processor's, and more threads only wait for the interpreter
lock. With 20 ms, about eight round trips pass until 16 are at work.
"""


_PEERS = {peer.title for peer in PEERS}


def written(results: Results) -> str:
    """The page."""
    rows = max((found["rows"] for found in results.values()), default=100_000)
    what = f"{rows:,} transactions in pages of 100 (55 KB each)"
    machine = ", ".join(
        filter(None, (f"{os.cpu_count()} cores", f"Python {platform.python_version()}", _dates(results)))
    )
    lines = [TOP.format(what=what, machine=machine), *_goals(results)]
    for name, scenario in SCENARIOS.items():
        if name in results and isinstance(scenario, SideBySide):
            lines += [f"\n## {scenario.title.capitalize()}\n", *_table(results[name]["figures"])]
    if "limited" in results:
        lines += ["\n## A bank with a rate limit\n", *_limited(results["limited"]["figures"])]
    if "memory" in results:
        lines += ["\n## Ten times, and a tenth of the rows\n", *_memory(results["memory"]["figures"])]
    for name, times in (("load", 1), ("load_many", 10)):
        if name in results:
            lines += [f"\n## {SCENARIOS[name].title.capitalize()}\n", *_loads(results[name], times)]
    lines.append(HOW)
    if "pieces" in results:
        lines += ["## Where the CPU goes\n", "| for one page of 100 records | µs of CPU |", "| --- | --- |"]
        lines += [f"| {name} | {value:.0f} |" for name, value in results["pieces"]["figures"].items()]
        lines.append(LEFT)
        lines += _bounds(results)
    return "\n".join(lines).rstrip() + "\n"


def _bounds(results: Results) -> Iterator[str]:
    """How much slower than bare sockets the others are, which is the most that any goal can ask for."""
    walls = {title: each["wall"] for title, each in results.get("20ms", {}).get("figures", {}).items()}
    if SOCKETS.title in walls:
        sockets = walls.pop(SOCKETS.title)
        least = sorted((wall / sockets, title) for title, wall in walls.items() if title in _PEERS)
        yield "Nobody can be faster here than bare sockets that only write down what they get. At 20 ms the others took"
        yield "so many times as long:\n"
        yield from (f"- {title}: {ratio:.1f}" for ratio, title in least)


def _dates(results: Results) -> str:
    return " to ".join(sorted({str(found["date"]) for found in results.values()}))


def _goals(results: Results) -> Iterator[str]:
    yield "| goal | wanted | measured | |"
    yield "| --- | --- | --- | --- |"
    for goal, value in judged(results):
        if value is None:
            yield f"| {goal.title} | {goal.wanted} | not measured | |"
        else:
            yield f"| {goal.title} | {goal.wanted} | {value:.3g} | {'met' if goal.met(value) else '**missed**'} |"


def _table(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "| puller | s | CPU s | sandbox's CPU s | peak MB | connections | requests | runs |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for title, each in figures.items():
        yield (
            f"| {title} | {each['wall']:.2f} | {each['cpu']:.2f} | {each['server_cpu']:.2f} | {each['peak_mb']:.0f} | "
            f"{each['connections']} | {each['requests']} | {each['runs']} |"
        )


def _limited(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "The bank allows one request at a time and so many a second; means of several runs, since waits are random.\n"
    yield "| limit | pages | ours, s | one cursor, s | ratio | ours, 429 | one cursor, 429 |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for limit, each in figures.items():
        ours, one = each[OURS.title], each[OURS_1.title]
        ratio = ours["wall"] / one["wall"]
        yield (
            f"| {limit} | {ours['pages']} | {ours['wall']:.1f} | {one['wall']:.1f} | {ratio:.2f} | "
            f"{ours['refused']} | {one['refused']} |"
        )


def _loads(result: Mapping[str, Any], times: int) -> Iterator[str]:
    yield f"About {result['rows'] * times:,} rows: into an empty table, the same rows again from another pull,"
    yield "and as many rows of the next interval, which dlt merges. CPU is that of client and server.\n"
    yield "| loader | rows | CPU s | of the server | s | client's peak MB | WAL MB | rows written | runs |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    steps = {"first": "first", "again": "the same", "second": "new"}
    for engine, found in result["figures"].items():
        if isinstance(found, str):
            yield f"| {engine}: skipped, {found} | | | | | | | | |"
            continue
        for title, each in found.items():
            for step, run in each.items():
                cpu = log = written = ""
                if "wal_mb" in run:
                    cpu, log, written = (f"{run['server_cpu']:.2f}", f"{run['wal_mb']:.1f}", f"{run['written']:,.0f}")
                yield (
                    f"| {engine}: {title} | {steps[step]} | {run['cpu'] + run['server_cpu']:.2f} | {cpu} | "
                    f"{run['wall']:.2f} | {run['peak_mb']:.0f} | {log} | {written} | {run['runs']} |"
                )


def _memory(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "| puller | rows | s | CPU s | peak MB |"
    yield "| --- | --- | --- | --- | --- |"
    for title, sizes in figures.items():
        for each in sizes.values():
            yield f"| {title} | {each['rows']:,} | {each['wall']:.2f} | {each['cpu']:.2f} | {each['peak_mb']:.0f} |"
