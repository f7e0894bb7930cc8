# SPDX-License-Identifier: Apache-2.0
"""`make storms`: hundreds of tasks share one session in a real Airflow, while its access token lives a few seconds.

Every storm is measured at the sandbox and in the tasks. Missed goals are printed, and the exit code is then 1. Speed is
measured, but is not a goal. All files stay in `.storms/`, and nothing is left running.

    python -m scripts.storm                           # all of them
    python -m scripts.storm --only cold --tasks 24    # one, and a small one
    python -m scripts.storm --write docs/storms.md    # all, and the table
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from scripts.airflow_stack import ROOT
from scripts.demo import Progress
from scripts.processes import ProcessDied, interrupt_on_sigterm
from scripts.services import Missing
from scripts.storm_celery import CeleryStack
from scripts.storm_figures import Figures, Plan
from scripts.storm_report import describe, report
from scripts.storm_stack import Stack

HOME = ROOT / ".storms"

#: How many tasks a storm has, unless its plan says otherwise.
TASKS = 200

STACKS: dict[type[Stack], tuple[Plan, ...]] = {
    Stack: (
        Plan("calm", TASKS // 2, access_token_life=900),
        Plan("cold", TASKS),
        Plan("expired", TASKS, begin="expired"),
        Plan("over", TASKS, begin="over"),
        Plan("deferred", TASKS // 2, deferred=TASKS // 2),
        Plan("ending", TASKS // 2, session_life=20, max_logins_per_hour=50),
    ),
    CeleryStack: (
        Plan("celery_calm", TASKS // 2, access_token_life=900, hosts=2),
        Plan("celery", TASKS, hosts=2),
        Plan("celery_redis", TASKS, lock="redis", hosts=2),
        Plan("celery_postgres", TASKS, lock="postgres", hosts=2),
        Plan("celery_deferred", TASKS // 2, deferred=TASKS // 2, hosts=2),
        Plan("celery_ending", TASKS // 2, session_life=20, max_logins_per_hour=50, hosts=2),
    ),
}


def storms(only: list[str], tasks: int | None, slots: int, tell: Progress) -> dict[str, list[Figures]]:
    """Run the storms of these names (all, if there are none) and return their figures by what they ran on."""
    found: dict[str, list[Figures]] = {}
    shutil.rmtree(HOME, ignore_errors=True)
    for kind, plans in STACKS.items():
        wanted = [plan for plan in plans if not only or plan.name in only]
        if not wanted:
            continue
        with kind(HOME / kind.__name__.lower(), slots, tell) as stack:
            for plan in wanted:
                figures = stack.run(plan if tasks is None else scaled(plan, tasks))
                found.setdefault(kind.title, []).append(figures)
                print(describe(figures), flush=True)
    return found


def scaled(plan: Plan, tasks: int) -> Plan:
    """Return the plan with so many tasks, half of them deferred where some are."""
    deferred = tasks // 2 if plan.deferred else 0
    return replace(plan, workers=tasks - deferred, deferred=deferred)


def main() -> int:
    """Run what the command line asks for."""
    names = [plan.name for plans in STACKS.values() for plan in plans]
    parser = argparse.ArgumentParser(description="Many tasks, one session: see the module's documentation.")
    parser.add_argument("--only", nargs="+", choices=names, default=[], help="which storms; all, if not given")
    parser.add_argument("--tasks", type=int, help=f"how many tasks each has, instead of {TASKS} or half as many")
    parser.add_argument("--slots", type=int, default=8, help="how many tasks run at once (default: 8)")
    parser.add_argument("--write", type=Path, help="write the table, as Markdown, to this file")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    tell = Progress()
    load = os.getloadavg()
    try:
        found = storms(arguments.only, arguments.tasks, arguments.slots, tell)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (Missing, ProcessDied, RuntimeError, TimeoutError) as error:
        print(f"The storms have failed: {error}\nLogs are in {HOME.relative_to(ROOT)}/", file=sys.stderr)
        return 1
    text = report(found, arguments.slots, load)
    if arguments.write:
        arguments.write.write_text(text)
        tell(f"wrote {arguments.write}")
    missed = [f"{figures.plan.name}: {goal}" for each in found.values() for figures in each for goal in figures.missed]
    print("\n".join(["", "Missed:", *missed] if missed else ["", "Every storm was as it should be."]))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
