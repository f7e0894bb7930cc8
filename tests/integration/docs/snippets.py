# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the README and the documentation, for the tests that run them.

Every fenced block is executed or checked by its language. If that is not possible, a comment on the line before says
why: `<!-- snippet: not run, it needs a scheduler -->`. A block for newer versions names the first one:
`<!-- snippet: from Airflow 3.3 on -->`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[3]

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])

#: Languages that are code. `text` is output, and languages in braces are directives of Sphinx.
CODE = frozenset({"python", "sh", "json", "ini", "yaml"})

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*).*$")
_MARKER = re.compile(r"^ *<!-- snippet: not run, (?P<why>.+) -->$")
_SINCE = re.compile(r"^ *<!-- snippet: from Airflow (?P<major>\d+)\.(?P<minor>\d+) on -->$")


@dataclass(frozen=True)
class Snippet:
    """One block: its page and first line, its language, its text, and the reason why it is not run, if any."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def name(self) -> str:
        """The name for a file or a module of this block."""
        return re.sub(r"\W+", "_", f"{Path(self.page).stem}_{self.line}").lower()


def pages() -> list[Path]:
    """Return the paths of the README and of every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets_of(text: str, page: str = "") -> Iterator[Snippet]:
    """Return every block of a page."""
    lines = iter(enumerate(text.splitlines(), 1))
    before = ""
    for number, line in lines:
        opened = _FENCE.match(line)
        if opened:
            indent = opened["indent"]
            body = []
            for _, inner in lines:
                if inner.rstrip() == f"{indent}```":
                    break
                body.append(inner)
            content = textwrap.dedent("\n".join(body)) + "\n"
            yield Snippet(page, number, opened["language"], content, _why_not(before))
        before = line


def _why_not(before: str) -> str | None:
    """Return the reason why a block is not run, from the line before it; None: it is run."""
    if marker := _MARKER.match(before):
        return marker["why"]
    if since := _SINCE.match(before):
        needed = int(since["major"]), int(since["minor"])
        return f"it needs Airflow {needed[0]}.{needed[1]}" if needed > AIRFLOW else None
    return None


def all_snippets() -> list[Snippet]:
    """Return every block of every page."""
    return [snippet for path in pages() for snippet in snippets_of(path.read_text(), path.relative_to(ROOT).as_posix())]


def runnable(language: str) -> list[Snippet]:
    """Return the blocks of one language that are run."""
    return [snippet for snippet in all_snippets() if snippet.language == language and snippet.not_run is None]
