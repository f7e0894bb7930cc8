# SPDX-License-Identifier: Apache-2.0
"""The output of a command: its result on standard output, everything else on standard error, and an exit status."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import IntergiroError


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a command.

    :param data: for scripts; printed as JSON.
    :param text: for people.
    :param failed: whether the exit status is 1.
    """

    data: Any
    text: str
    failed: bool = False


def command(work: Callable[[Namespace], Result]) -> Callable[[Namespace], None]:
    """Decorate the function of a command: print its result, or its error in one line, and set the exit status."""

    @functools.wraps(work)
    def run(args: Namespace) -> None:
        try:
            with _nothing_else_on_stdout():
                result = work(args)
        except IntergiroError as error:
            raise SystemExit(f"{type(error).__name__}: {error}") from None
        print(json.dumps(result.data, indent=2) if args.output == "json" else result.text)  # noqa: T201 # the result
        if result.failed:
            raise SystemExit(1)

    return run


@contextlib.contextmanager
def _nothing_else_on_stdout() -> Iterator[None]:
    """Redirect standard output to standard error for loggers and libraries.

    Each version of Airflow logs to another place, and some loggers keep the file that they opened. So this replaces
    the file descriptor. Airflow's `suppress_logs_and_warning` would drop the log of a renewal.
    """
    sys.stdout.flush()
    try:
        number, kept = sys.stdout.fileno(), os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), number)
    except (OSError, ValueError):
        # These are not real files, for example under a test runner.
        yield
        return
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, number)
        os.close(kept)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return rows of text as a table without lines; the last column is wrapped at the width of the terminal."""
    from airflow.cli.simple_table import AirflowConsole, SimpleTable

    rows = list(rows)
    grid: Any = SimpleTable(box=None, caption=None, padding=(0, 2, 0, 0))  # type: ignore[no-untyped-call]
    for _ in rows[0][:-1]:
        grid.add_column(no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    # Brackets and colons in the text are not markup.
    console = AirflowConsole(markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def moment(at: float) -> str | None:
    """Return epoch seconds in ISO 8601; None for 0, which means unknown."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None


def ago(seconds: float) -> str:
    """Return how long ago that is, for people."""
    if seconds < 0:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
