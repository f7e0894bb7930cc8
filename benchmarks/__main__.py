# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks``: measure, judge, and write the page and its chart."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.environments import BUILD, HERE, ROOT, python_of, resolve_pins, variables
from benchmarks.goals import judged
from benchmarks.page import written
from benchmarks.scenarios import SCENARIOS, measured


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    made.add_argument(
        "--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO",
        help=f"measure these, and keep the other figures of former runs: {', '.join(SCENARIOS)}",
    )  # fmt: skip
    made.add_argument("--rows", type=int, default=100_000, help="rows of a pull (default: 100000)")
    made.add_argument("--rounds", type=int, default=3, help="runs of each puller, in turns (default: 3)")
    made.add_argument("--quick", action="store_true", help="10,000 rows, one round, nothing written to docs/")
    made.add_argument("--without-peers", action="store_true", help="nothing that needs an environment of its own")
    made.add_argument("--figures", type=Path, default=BUILD / "figures.json", help="where figures are kept")
    made.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page and the chart go")
    made.add_argument("--pins", action="store_true", help="only resolve the peers' pins")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure. Exit status 1: a goal was missed."""
    given = parser().parse_args(arguments)
    if given.pins:
        resolve_pins()
        return 0
    rows, rounds = (10_000, 1) if given.quick else (given.rows, given.rounds)
    figures: Path = given.figures.with_stem("quick") if given.quick else given.figures
    figures.parent.mkdir(parents=True, exist_ok=True)
    variables()
    results: dict[str, Any] = json.loads(figures.read_text()) if figures.exists() else {}
    began = time.monotonic()
    for name in given.only or SCENARIOS:
        results[name] = measured(name, rows, rounds, functools.partial(_say, name), not given.without_peers)
        figures.write_text(json.dumps(results, indent=1))
    missed = 0
    for goal, value in judged(results):
        standing = "not measured" if value is None else f"{value:8.3g} {'met' if goal.met(value) else 'MISSED'}"
        missed += value is not None and not goal.met(value)
        _say("", f"{goal.title:75} {goal.wanted:14} {standing}")
    _say("", f"took {time.monotonic() - began:.0f} s; figures are in {figures}")
    if not given.quick:
        (given.docs / "benchmarks.md").write_text(written(results))
        if not given.without_peers:
            chart = [python_of("chart"), str(HERE / "chart.py"), str(figures), str(given.docs / "benchmarks.png")]
            subprocess.run(chart, check=True)
    return int(missed > 0)


def _say(scenario: str, text: str) -> None:
    print(f"{scenario}: {text}" if scenario else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
