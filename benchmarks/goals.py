# SPDX-License-Identifier: Apache-2.0
"""What the figures have to come to: ratios within one run, so that the machine does not matter much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.runs import Puller
from benchmarks.scenarios import (
    AIRBYTE,
    BYTES,
    DLT,
    DLT_CLIENT,
    HTTP_OPERATOR,
    JSON,
    OURS_4,
    OURS_16,
    OURS_32,
    PARQUET,
    SINGER,
)

Results = Mapping[str, Any]
PAGE = 100


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
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}{self.unit}"


def _of(results: Results, scenario: str, puller: Puller, figure: str) -> float:
    return float(results[scenario]["figures"][puller.title][figure])


def _ratio(scenario: str, figure: str, ours: Puller, other: Puller) -> Callable[[Results], float]:
    return lambda results: _of(results, scenario, ours, figure) / _of(results, scenario, other, figure)


def _floor(results: Results) -> float:
    pages = int(results["20ms"]["rows"]) / PAGE
    return _of(results, "20ms", OURS_16, "wall") / (pages / OURS_16.windows * 0.02)


def _growth(puller: Puller) -> Callable[[Results], float]:
    def value(results: Results) -> float:
        found = results["memory"]["figures"][puller.title]
        return float(found["many"]["peak_mb"] - found["few"]["peak_mb"])

    return value


def _connections(results: Results) -> float:
    """The largest excess of connections over windows."""
    return max(
        _of(results, scenario, puller, "connections") - puller.windows
        for scenario, puller in (("0ms", OURS_4), ("20ms", OURS_16), ("100ms", OURS_32))
    )


def _within(scenario: str, one: str, other: str) -> Callable[[Results], float]:
    return lambda results: float(results[scenario]["figures"][one] / results[scenario]["figures"][other])


GOALS = (
    Goal("20 ms, 16 windows: wall against requests, bodies not decoded", _ratio("20ms", "wall", OURS_16, BYTES), 0.07),
    Goal("20 ms, 16 windows: wall against pages ÷ windows × latency", _floor, 1.2),
    Goal(
        "100 ms, 32 windows: wall against requests, bodies not decoded", _ratio("100ms", "wall", OURS_32, BYTES), 0.04
    ),
    *(
        Goal(
            f"20 ms: {peer.title}, wall against ours with 16 windows", _ratio("20ms", "wall", peer, OURS_16), 18, False
        )
        for peer in (HTTP_OPERATOR, DLT_CLIENT, DLT, SINGER, AIRBYTE)
    ),
    Goal("no latency, 4 windows: CPU against requests and json.loads", _ratio("0ms", "cpu", OURS_4, JSON), 0.55),
    Goal("no latency, 4 windows: CPU against HttpOperator", _ratio("0ms", "cpu", OURS_4, HTTP_OPERATOR), 0.33),
    Goal("peak memory, JSONL: 100 times the rows", _growth(OURS_4), 20, unit=" MB more"),
    Goal("peak memory, Parquet: 100 times the rows", _growth(PARQUET), 64, unit=" MB more"),
    Goal("connections beyond the number of windows", _connections, 0),
    Goal("parsing a DAG file with our operators, against the same without", _within("parse", "with", "without"), 1.5),
    Goal("authentication against the rest of a request, CPU", _within("auth", "authentication", "request"), 0.05),
)


def judged(results: Results) -> Iterator[tuple[Goal, float | None]]:
    """Each goal and its value; None where that was not measured."""
    for goal in GOALS:
        try:
            yield goal, goal.value(results)
        except KeyError:
            yield goal, None
