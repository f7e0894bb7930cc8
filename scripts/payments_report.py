# SPDX-License-Identifier: Apache-2.0
"""The report of a payments campaign: the page docs/payments.md, and the goals that were missed."""

from __future__ import annotations

import os
import platform
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from scripts.payments_figures import Figures
from scripts.payments_plan import KILLED, SETTLE, SHARD, STEPS

COLUMNS = (
    "bank", "requested", "attempts", "kills", "faults", "failed at first", "cleared", "made", "twice",
    "missing, task successful", "missing, reported", "failed at the end",
)  # fmt: skip


def missed(figures: Iterable[Figures], leaks: list[str]) -> list[str]:
    """Return the goals that were missed."""
    found = [f"{each.title}: {each.twice} paid twice" for each in figures if each.twice]
    found += [
        f"{each.title}: {each.missing_silently} missing, task successful" for each in figures if each.missing_silently
    ]
    found += [f"{each.title}: {each.logins} logins, {each.refused} refused" for each in figures if each.refused]
    return found + [f"account data or a secret in {place}" for place in leaks]


def report(
    figures: Sequence[Figures],
    leaks: list[str],
    searched: dict[str, int],
    seconds: float,
    load: list[float],
    arguments: Namespace,
) -> str:
    """Return the page."""
    kills, faults = Counter[tuple[str, bool]](), Counter[str]()
    for each in figures:
        kills += each.kills
        faults += each.faults
    faulty = missed(figures, leaks)
    bulks = [each for each in figures if _is_bulk(each)]
    single = [each for each in figures if each not in bulks]
    return "\n".join(
        [
            "# Payments under kills and faults",
            "",
            f"**In short**: {sum(f.asked for f in single):,} payments and {sum(f.asked for f in bulks):,} items of "
            f"bulk payments, in {sum(f.attempts for f in figures):,} attempts, with {sum(kills.values()):,} kills and "
            f"{sum(faults.values()):,} faults. {sum(f.twice for f in figures)} payments were made twice. "
            f"{sum(f.missing_silently for f in figures)} payments are missing although their task succeeded.",
            "",
            f"`make payments` writes this page. It takes about {round(seconds / 600) * 10} minutes. Every payment is a "
            "task of a real Airflow with API server, scheduler, DAG processor, triggerer and LocalExecutor. There is "
            "one [sandbox](reference/sandbox.md) for each kind of bank. All DAGs run at the same time, with "
            f"{arguments.slots} parallel tasks.",
            "",
            f"* {KILLED[1]:.0%} of the first attempts and {KILLED[2]:.0%} of the second attempts are killed with "
            "SIGKILL.",
            "* The banks lose responses, return 502 or 503, and drop connections. They still carry out some of these "
            f"payments, immediately or up to 6 s later. `settle` is {SETTLE.seconds} s.",
            "* After each run, all failed task instances and a tenth of all task instances are cleared through "
            "Airflow's REST API. They run again.",
            f"* Each run has at most {SHARD} payments. Half of them have a record (`record_path`). At the bank that "
            "ignores idempotency keys, all have a record.",
            "",
            "The columns are explained [below](#columns). *Keys* are idempotency keys.",
            "",
            *(["**Missed:** " + "; ".join(faulty), ""] if faulty else []),
            "## Payments",
            "",
            *_table(COLUMNS, [_row(each) for each in single]),
            "",
            *_remarks(single),
            "## Bulk payments",
            "",
            "A bulk payment is one task, in batches of 1,000 items. Each item counts as a payment. After "
            "`OutcomeUnknown`, the campaign waits and clears the task, as its message says. In the last row, one "
            "request never reaches the bank. The task cannot know that, and `resend_after` is not set. So the task "
            "stays failed, and sends no later batch.",
            "",
            *_table(COLUMNS, [_row(each) for each in bulks]),
            "",
            "## Columns",
            "",
            *_table(
                ("column", "meaning"),
                [
                    ("attempts", "attempts (tries) of task instances, as Airflow counts them"),
                    ("kills", "SIGKILLs that were sent to task processes"),
                    ("faults", "payment requests for which the bank caused a fault"),
                    ("failed at first", "task instances that failed before any was cleared, by error"),
                    ("missing, reported", "payments that the bank did not make, and whose task failed"),
                    ("failed at the end", "task instances that are failed at the end, by error"),
                ],
            ),
            "",
            "## Kills",
            "",
            *_table(
                ("step", "with a record", "without"), [(step, kills[step, True], kills[step, False]) for step in STEPS]
            ),
            "",
            "## Faults",
            "",
            *_table(("fault", "requests"), sorted(faults.items())),
            "",
            "## Sessions",
            "",
            "All tasks at one bank share one session.",
            "",
            *_table(
                ("bank", "attempts", "logins", "refreshes", "refused logins and refreshes"),
                [(f.title, f.attempts, f.logins, f.refreshes, f.refused) for f in figures],
            ),
            "",
            "## Account data",
            "",
            f"Places that contain an IBAN, a name, a reference, the address of a consent page, a token or the API key: "
            f"{len(leaks)}. The search covered {', '.join(f'{number:,} {what}' for what, number in searched.items())}: "
            f"the logs of all tasks and components at level {arguments.level}, every table of Airflow's database "
            "including XComs, and the payment records.",
            "",
            "## Measured on",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}, Airflow {version('apache-airflow')}, {seconds / 60:.0f} minutes, "
            f"median load average {sorted(load)[len(load) // 2]:.1f}",
            "",
        ]
    )


def _is_bulk(figures: Figures) -> bool:
    return figures.title.startswith(("items ", "one request "))


def _row(each: Figures) -> tuple[Any, ...]:
    return (
        each.title, each.asked, each.attempts, sum(each.kills.values()), sum(each.faults.values()),
        _format_counts(each.failed_at_first), each.cleared, each.made, each.twice,
        each.missing_silently, each.missing_reported, _format_counts(each.failed_at_end),
    )  # fmt: skip


def _format_counts(errors: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(errors.items())) or "0"


def _remarks(figures: Iterable[Figures]) -> list[str]:
    lines = [f"* {each.title}: {remark}." for each in figures for remark in each.remarks]
    return [*lines, ""] if lines else []


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [[*header], ["---"] * len(header), *rows]
    return [f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in row)} |" for row in lines]
