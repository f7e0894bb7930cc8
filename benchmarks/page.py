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

This page compares the time, CPU and memory of this provider (*ours* in the tables) with other tools that pull the same
list.

![Seconds and CPU of each tool](benchmarks.png)

Each tool pulls {what} into local files. The bank is the
[sandbox](reference/sandbox.md) in its own process, with records that are serialized before the measurement. {machine}.

Compare figures only within one table, not between days or machines. `make benchmarks` writes this page and its chart.

## Goals

Each goal is a ratio or a difference within one run. *Wall* is elapsed time. *No latency*, *20 ms* and *100 ms* are the
time that the sandbox waits before each response.

"""

HOW = """
## How it is measured

- Each tool runs in its own process, all with the same Python. Other tools run in their own environments, pinned in
  `benchmarks/requirements-*.txt`.
- The clock starts after imports, start-up and login, and stops when the pull returns.
- *CPU* is the user and system time of the tool during this interval. The sandbox's CPU is in its own column. *Peak MB*
  is the memory of the whole process, including imported modules.
- The tools take turns, and each figure is a median. Tools that mostly wait run only once.
- After each run the files are read. If a row is missing or duplicated, the run fails and has no figures.
- *Ours* is `IntergiroToObjectStorageOperator.execute`, including hashes, manifest and fsync. It chooses the number of
  windows while it pulls. *n windows from the beginning* fixes that number, and *1 cursor* pulls without windows.
- HttpHook and HttpOperator decode a page only for its cursor, and write the bodies unchanged. Most users do more with
  them. The other tools have a token that does not expire. None of them renews tokens.
- *Bare sockets* only receive the bytes and write them to files. They are not a usable tool, but show the limit of the
  sandbox.
- *Connections* are connections on which the sandbox received a request.
- Loads use their own PostgreSQL server without autovacuum. It makes a checkpoint before each run. Its CPU is that of
  all its processes. COPY fills a table with our columns, key and index, from a prepared CSV file. dlt merges by `id`
  (delete-insert), with its fastest loader format. dlt's Arrow tables need additional code: pyarrow infers the types of
  JSON lines, and nested columns must be converted to strings.
"""

LEFT = """
`requests.Session` prepares each request, merges settings, and returns the body in pieces of 10 KB. For one page, this
costs more CPU than everything else. So a pull prepares its request only once. It sends the request through the
connection pool of the same session (`intergiro_provider/api/reader.py`), under the same authentication, retry rules,
certificates and proxies.

A pull chooses the number of parallel windows while it runs (`intergiro_provider/pull/pace.py`). It starts with one
window. It continues with four and sixteen windows as long as the pages per second grow enough. After a step that was
too large, it doubles the number instead. Without latency, one or two windows are best: the CPU is the limit, and more
threads only wait for Python's global interpreter lock. With 20 ms, it reaches 16 windows after about eight round
trips.
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
        lines += ["\n## Memory\n", *_memory(results["memory"]["figures"])]
    for name, times in (("load", 1), ("load_many", 10)):
        if name in results:
            lines += [f"\n## {SCENARIOS[name].title.capitalize()}\n", *_loads(results[name], times)]
    lines.append(HOW)
    if "pieces" in results:
        lines += ["## Where the CPU goes\n", "| for one page of 100 records | CPU, µs |", "| --- | --- |"]
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
        yield "No tool can be faster here than the bare sockets. With 20 ms of latency, the other tools took"
        yield "this many times as long as the bare sockets:\n"
        yield from (f"- {title}: {ratio:.1f}" for ratio, title in least)


def _dates(results: Results) -> str:
    return " to ".join(sorted({str(found["date"]) for found in results.values()}))


def _goals(results: Results) -> Iterator[str]:
    yield "| goal | bound | measured | |"
    yield "| --- | --- | --- | --- |"
    for goal, value in judged(results):
        if value is None:
            yield f"| {goal.title} | {goal.wanted} | not measured | |"
        else:
            yield f"| {goal.title} | {goal.wanted} | {value:.3g} | {'met' if goal.met(value) else '**missed**'} |"


def _table(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "| tool | s | CPU s | sandbox's CPU s | peak MB | connections | requests | runs |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for title, each in figures.items():
        yield (
            f"| {title} | {each['wall']:.2f} | {each['cpu']:.2f} | {each['server_cpu']:.2f} | {each['peak_mb']:.0f} | "
            f"{each['connections']} | {each['requests']} | {each['runs']} |"
        )


def _limited(figures: Mapping[str, Any]) -> Iterator[str]:
    yield "The bank allows one request at a time, and the given number of requests per second. Waiting times are"
    yield "random, so the figures are means of several runs.\n"
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
    yield f"Each loader loads about {result['rows'] * times:,} rows three times: *first* into an empty table,"
    yield "*the same* rows again from another pull, and then as many *new* rows of the next interval, which dlt merges."
    yield "CPU is the sum of client and server.\n"
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
    yield "| tool | rows | s | CPU s | peak MB |"
    yield "| --- | --- | --- | --- | --- |"
    for title, sizes in figures.items():
        for each in sizes.values():
            yield f"| {title} | {each['rows']:,} | {each['wall']:.2f} | {each['cpu']:.2f} | {each['peak_mb']:.0f} |"
