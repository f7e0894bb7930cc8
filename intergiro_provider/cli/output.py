# SPDX-License-Identifier: Apache-2.0
"""How a command ends: its result on standard output, everything else on standard error, and an exit status."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from intergiro_provider.exceptions import IntergiroError


@dataclass(frozen=True, slots=True)
class Result:
    """What a command has found.

    :param data: for scripts; goes into JSON.
    :param text: for people.
    :param failed: whether the exit status is to say that something is wrong.
    """

    data: Any
    text: str
    failed: bool = False


def run(args: Namespace, work: Callable[[], Result]) -> None:
    """Do the work and print its result.

    :raises SystemExit: with status 1 where something is wrong.
    """
    try:
        with _nothing_else_on_stdout():
            result = work()
    except IntergiroError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    print(json.dumps(result.data, indent=2) if args.output == "json" else result.text)  # noqa: T201 # what it is for
    if result.failed:
        raise SystemExit(1)


@contextlib.contextmanager
def _nothing_else_on_stdout() -> Iterator[None]:
    """Send what loggers and libraries write to standard output to standard error.

    Where Airflow's loggers write to is different in every version, and some have taken the file when they were made;
    so the descriptor is exchanged.
    """
    sys.stdout.flush()
    try:
        number, kept = sys.stdout.fileno(), os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), number)
    except (OSError, ValueError):
        # Not real files, as under a test runner.
        yield
        return
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, number)
        os.close(kept)


def width() -> int:
    """Columns for text, whatever the terminal has."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)


def table(rows: Iterable[tuple[str, ...]], columns: int | None = None) -> str:
    """Rows of text whose last cell is wrapped; its line breaks are kept.

    :param columns: how wide it may get; None: as wide as the terminal.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    lines = []
    for *cells, last in rows:
        head = "".join(cell.ljust(size + 2) for cell, size in zip(cells, widths, strict=True))
        for part in last.splitlines() or [""]:
            wrapped = textwrap.wrap(
                part,
                (columns or width()) - indent,
                subsequent_indent="  " if part.startswith("→") else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in wrapped or [""]:
                lines.append(f"{head}{line}".rstrip())
                head = " " * indent
    return "\n".join(lines)


def moment(at: float) -> str | None:
    """Epoch seconds in ISO 8601; None where they are 0, which means unknown."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None


def ago(seconds: float) -> str:
    """How long ago, for people."""
    if seconds < 0:
        return "just now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
