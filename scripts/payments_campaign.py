# SPDX-License-Identifier: Apache-2.0
"""`make payments`: payments as tasks of a real Airflow. Tasks are killed with SIGKILL, and banks lose responses.

Every bank has a DAG, and all DAGs run at once. The campaign fails if a payment was made twice, or is missing although
its task succeeded. Its files stay in `.payments/`. It stops all its processes.

    python -m scripts.payments_campaign --payments 40 --others 10 --items 1500   # a small one
    python -m scripts.payments_campaign --write docs/payments.md
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from scripts.airflow_stack import ROOT
from scripts.payments_figures import Figures
from scripts.payments_plan import BULKS, MODES
from scripts.payments_report import missed, report
from scripts.payments_stack import (
    Stack,
    bulk_payment,
    consents,
    mapped,
    payments,
    print_progress,
)
from scripts.processes import ProcessDied, interrupt_on_sigterm
from scripts.services import Missing

HOME = ROOT / ".payments"


def main() -> int:
    """Run the campaign with the options of the command line."""
    parser = argparse.ArgumentParser(description="Payments in a real Airflow: see the module's documentation.")
    parser.add_argument("--payments", type=int, default=1000, help="number at the bank that keeps keys (default: 1000)")
    parser.add_argument("--others", type=int, default=120, help="number at each other bank (default: 120)")
    parser.add_argument("--items", type=int, default=10_000, help="items of each bulk payment (default: 10000)")
    parser.add_argument("--slots", type=int, default=8, help="how many tasks run at once (default: 8)")
    parser.add_argument("--level", default="INFO", help="level of Airflow's logs, which are searched for account data")
    parser.add_argument("--write", type=Path, help="write the result, as Markdown, to this file")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    shutil.rmtree(HOME, ignore_errors=True)
    began, load = time.monotonic(), [os.getloadavg()[0]]
    try:
        with Stack(HOME, arguments.slots, arguments.level, print_progress) as stack:
            figures = _run(stack, arguments, load)
            leaks, searched = stack.leaks()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (Missing, ProcessDied, RuntimeError, TimeoutError) as error:
        print(f"The campaign has failed: {error}\nLogs are in {HOME.relative_to(ROOT)}/", file=sys.stderr)
        return 1
    text = report(figures, leaks, searched, time.monotonic() - began, load, arguments)
    (HOME / "report.md").write_text(text)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)
    faulty = missed(figures, leaks)
    print("\n".join(["Missed:", *faulty] if faulty else ["All goals were met."]))
    return 1 if faulty else 0


def _run(stack: Stack, arguments: argparse.Namespace, load: list[float]) -> list[Figures]:
    """Run all parts at the same time, and print the progress. Return the figures in the order of the report."""
    counts = [arguments.payments, *[arguments.others] * (len(MODES) - 1)]
    parts: list[Callable[[], list[Figures]]] = [
        *(functools.partial(payments, stack, mode, count) for mode, count in zip(MODES, counts, strict=True)),
        functools.partial(mapped, stack),
        functools.partial(consents, stack),
        *(functools.partial(bulk_payment, stack, bulk, arguments.items) for bulk in BULKS),
    ]
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [pool.submit(part) for part in parts]
        try:
            for number in itertools.count():
                _, waiting = wait(running, 5, FIRST_EXCEPTION)
                stack.airflow.processes.check()
                if not waiting or any(each.done() and each.exception() for each in running):
                    break
                if number % 6 == 0:
                    load.append(os.getloadavg()[0])
                    stack.report(f"{stack.progress()}; {len(waiting)} of {len(running)} parts run")
            return [figures for each in running for figures in each.result()]
        except BaseException:
            stack.airflow.stop(1.0)  # then the other parts fail
            raise


if __name__ == "__main__":
    raise SystemExit(main())
