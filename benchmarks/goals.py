# SPDX-License-Identifier: Apache-2.0
"""The goals of the benchmarks. They are ratios within one run, so that the machine matters little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.loads import COPIED, CREATED, DLT_ARROW, DLT_PARQUET, DLT_RECORDS, OURS_LINES, OURS_PARQUET, Loader
from benchmarks.runs import Puller
from benchmarks.scenarios import (
    AIRBYTE,
    BYTES,
    DLT,
    DLT_CLIENT,
    FIXED,
    HTTP_OPERATOR,
    JSON,
    OURS,
    OURS_1,
    PARQUET,
    SINGER,
    over_tls,
)

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One goal.

    :param value: takes the results and returns what it is about; KeyError where that was not measured.
    :param at_most: else at least.
    """

    title: str
    value: Callable[[Results], float]
    bound: float
    at_most: bool = True
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether this value is good enough."""
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def wanted(self) -> str:
        """The bound, for people."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:.3g}{self.unit}"


def _of(results: Results, scenario: str, puller: Puller, figure: str) -> float:
    return float(results[scenario]["figures"][puller.title][figure])


def _ratio(scenario: str, figure: str, ours: Puller, other: Puller) -> Callable[[Results], float]:
    return lambda results: _of(results, scenario, ours, figure) / _of(results, scenario, other, figure)


def _against_best(scenario: str, figure: str = "wall") -> Callable[[Results], float]:
    """Ours against the best number of windows that is fixed."""

    def value(results: Results) -> float:
        figures = results[scenario]["figures"]
        _ = figures[FIXED[-1].title]
        return float(
            figures[OURS.title][figure] / min(figures[each.title]["wall"] for each in FIXED if each.title in figures)
        )

    return value


def _limited(results: Results) -> float:
    """The largest ratio of all limits."""
    found = results["limited"]["figures"].values()
    return max(float(each[OURS.title]["wall"] / each[OURS_1.title]["wall"]) for each in found)


def _requests(records: str) -> Callable[[Results], float]:
    return lambda results: float(results["few"]["figures"][records]["requests"])


def _growth(puller: Puller) -> Callable[[Results], float]:
    def value(results: Results) -> float:
        found = results["memory"]["figures"][puller.title]
        return float(found["many"]["peak_mb"] - found["few"]["peak_mb"])

    return value


def _connections(results: Results) -> float:
    """The largest excess of connections over windows."""
    return max(_of(results, scenario, OURS, "connections") - OURS.windows for scenario in ("0ms", "20ms", "100ms"))


def _within(scenario: str, one: str, other: str) -> Callable[[Results], float]:
    return lambda results: float(results[scenario]["figures"][one] / results[scenario]["figures"][other])


def _load(results: Results, scenario: str, engine: str, loader: Loader, step: str = "first") -> Mapping[str, float]:
    found = results[scenario]["figures"][engine]
    if isinstance(found, str):  # was skipped
        raise KeyError(engine)
    figures: Mapping[str, float] = found[loader.title][step]
    return figures


def _load_cpu(
    scenario: str, engine: str, ours: Loader, others: tuple[Loader, ...], steps: tuple[str, str] = ("first", "first")
) -> Callable[[Results], float]:
    """CPU of client and server together, against the least of the others."""

    def cpu(results: Results, loader: Loader, step: str) -> float:
        figures = _load(results, scenario, engine, loader, step)
        return figures["cpu"] + figures["server_cpu"]

    return lambda results: cpu(results, ours, steps[0]) / min(cpu(results, each, steps[1]) for each in others)


def _load_growth(step: str) -> Callable[[Results], float]:
    def value(results: Results) -> float:
        few, many = (_load(results, name, "PostgreSQL", OURS_LINES, step)["peak_mb"] for name in ("load", "load_many"))
        return many - few

    return value


def _reload(figure: str) -> Callable[[Results], float]:
    return lambda results: _load(results, "load", "PostgreSQL", OURS_LINES, "again")[figure]


_EMPTY, _SECOND, _RERUN = ("first", "first"), ("second", "second"), ("again", "first")
_LOADS = (
    *(
        Goal(
            f"PostgreSQL, {size}{kind}: CPU, relative to {what}",
            _load_cpu(name, "PostgreSQL", OURS_LINES, others, steps),
            bound,
        )
        for name, size in (("load", "100,000 rows"), ("load_many", "1,000,000 rows"))
        for steps, kind in ((_EMPTY, ", empty table"), (_SECOND, ", next interval"))
        for what, others, bound in (
            ("COPY of a prepared CSV", (COPIED,), 2.2),
            ("dlt, records", (DLT_RECORDS,), 1 / 6),
            ("dlt, Arrow tables made by its user", (DLT_ARROW,), 1 / 6),
        )
    ),
    Goal("PostgreSQL: client's memory, ten times the rows", _load_growth("first"), 20, unit=" MB more"),
    Goal("PostgreSQL, next interval: client's memory, ten times the rows", _load_growth("second"), 20, unit=" MB more"),
    Goal("PostgreSQL, the same rows again: rows written", _reload("written"), 0),
    Goal(
        "PostgreSQL, the same rows again: WAL, relative to the first load",
        lambda results: _reload("wal_mb")(results) / _load(results, "load", "PostgreSQL", OURS_LINES)["wal_mb"],
        0.15,
    ),
    Goal(
        "DuckDB, Parquet: CPU, relative to CREATE TABLE AS",
        _load_cpu("load", "DuckDB", OURS_PARQUET, (CREATED,), _EMPTY),
        1.3,
    ),
    Goal(
        "DuckDB, Parquet, the same rows again: CPU, relative to CREATE TABLE AS",
        _load_cpu("load", "DuckDB", OURS_PARQUET, (CREATED,), _RERUN),
        1,
    ),
    Goal(
        "DuckDB, Parquet: CPU, relative to dlt", _load_cpu("load", "DuckDB", OURS_PARQUET, (DLT_PARQUET,), _EMPTY), 0.25
    ),
)


GOALS = (
    *(
        Goal(f"{title}: wall, relative to the best fixed number of windows", _against_best(scenario), 1.15)
        for scenario, title in (("0ms", "no latency"), ("20ms", "20 ms"), ("100ms", "100 ms"))
    ),
    *(
        Goal(f"20 ms: {peer.title}: wall, relative to ours", _ratio("20ms", "wall", peer, OURS), 13, False)
        for peer in (HTTP_OPERATOR, DLT_CLIENT, DLT, SINGER, AIRBYTE)
    ),
    Goal(
        "20 ms, over TLS: wall, relative to requests, bodies not decoded",
        _ratio("tls", "wall", over_tls(OURS), over_tls(BYTES)),
        0.08,
    ),
    Goal("a bank that allows 1, 2, 5 or 20 requests/s: wall, relative to one cursor", _limited, 1.05),
    Goal("a day without records: requests", _requests("0"), 1),
    Goal("a day of 100 records: requests", _requests("100"), 2),
    Goal("no latency: CPU, relative to requests and json.loads", _ratio("0ms", "cpu", OURS, JSON), 0.55),
    Goal("no latency: CPU, relative to HttpOperator", _ratio("0ms", "cpu", OURS, HTTP_OPERATOR), 0.33),
    Goal("peak memory, JSONL: 1,000,000 rows, relative to 10,000", _growth(OURS), 20, unit=" MB more"),
    Goal("peak memory, Parquet: 1,000,000 rows, relative to 10,000", _growth(PARQUET), 64, unit=" MB more"),
    Goal("connections beyond the number of windows", _connections, 0),
    Goal(
        "parsing a DAG file with our operators, relative to the same file without",
        _within("parse", "with", "without"),
        1.5,
    ),
    Goal("authentication: CPU, relative to the rest of a request", _within("auth", "authentication", "request"), 0.05),
    *_LOADS,
)


def judged(results: Results) -> Iterator[tuple[Goal, float | None]]:
    """Each goal and its value; None where that was not measured."""
    for goal in GOALS:
        try:
            yield goal, goal.value(results)
        except KeyError:
            yield goal, None
