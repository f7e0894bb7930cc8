# SPDX-License-Identifier: Apache-2.0
"""The findings of a check."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from intergiro_provider.cli.output import table
from intergiro_provider.exceptions import IntergiroError


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result.

    :param what: name of the check; stable.
    :param state: ok; warning: it works but could be better; error: tasks fail, or a secret is not safe.
    :param finding: the result of the check.
    :param remedy: what to do next; None: nothing.
    """

    what: str
    state: Literal["ok", "warning", "error"]
    finding: str
    remedy: str | None = None


def looked_at(what: str, look: Callable[[], Finding]) -> Finding:
    """Run a check and return its finding; if the check fails, a finding about that."""
    try:
        return look()
    except IntergiroError as error:
        return Finding(what, "error", str(error))
    except Exception as error:
        # Its text may quote a secret.
        return Finding(what, "error", f"This could not be checked ({type(error).__name__}).")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return its result and the seconds that it took."""
    began = time.monotonic()
    result = work()
    return result, time.monotonic() - began


def by_time(took: float, limit: float) -> Literal["ok", "warning", "error"]:
    """Compare a time with its limit. From half the limit it is a warning: a busy hour may take twice as long."""
    return "error" if took > limit else "warning" if took > limit / 2 else "ok"


def findings_data(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the findings for scripts."""
    return [asdict(finding) for finding in findings]


def findings_text(findings: Iterable[Finding]) -> str:
    """Return the findings for people, each with its remedy below it."""
    marks = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}
    return table(
        (marks[f.state], f.what, f.finding + (f"\n→ {f.remedy}" if f.remedy is not None else "")) for f in findings
    )
