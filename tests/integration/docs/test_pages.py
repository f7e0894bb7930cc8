# SPDX-License-Identifier: Apache-2.0
"""The documentation agrees with the code, and its pictures exist."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from intergiro_provider import exceptions
from tests.integration.docs.snippets import ROOT, pages, snippets_of

pytestmark = pytest.mark.integration

DOCS = ROOT / "docs"
#: The largest size of a picture, in bytes, as in the tests of the browser.
HEAVIEST = 150_000


def literals(path: Path) -> list[str]:
    """Return every string in a module's code, each on one line, with `…` in place of f-string values."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            found.append("".join(parts))
    return [" ".join(text.split()) for text in found]


def says(quoted: str, texts: list[str]) -> bool:
    """Return whether one of the texts contains the pieces between `…` of `quoted`, in order."""
    pattern = re.compile(".*".join(re.escape(piece.strip()) for piece in " ".join(quoted.split()).split("…")))
    return any(pattern.search(text) for text in texts)


def test_every_message_in_troubleshooting_is_one_of_ours() -> None:
    texts = [text for path in (ROOT / "intergiro_provider").rglob("*.py") for text in literals(path)]
    quoted = [s for s in snippets_of((DOCS / "troubleshooting.md").read_text()) if s.language == "text"]
    assert len(quoted) > 15
    assert [s.text for s in quoted if not says(s.text, texts)] == []


def test_a_message_that_is_not_ours_is_noticed() -> None:
    assert says("There is … session: …", ["There is no session: it has ended"])
    assert not says("There was … session: …", ["There is no session: it has ended"])


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_exception_is_in_troubleshooting(name: str) -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    assert f"`{name}`" in text or name in {"IntergiroError", "IntergiroApiError"}, "only bases are left out"


def test_every_example_is_on_its_page() -> None:
    text = (DOCS / "examples.md").read_text()
    examples = [f"dags_examples/{path.name}" for path in (ROOT / "dags_examples").glob("*.py")]
    assert [example for example in examples if f"(../{example})" not in text] == []


def test_every_path_in_contributing_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:intergiro_provider|tests|docs|packaging|scripts)/[\w./]*)`", text))
    assert len(paths) > 40
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
    packages = [
        f"intergiro_provider/{init.parent.name}/" for init in (ROOT / "intergiro_provider").glob("*/__init__.py")
    ]
    assert sorted(name for name in packages if not any(path.startswith(name) for path in paths)) == []


def arrows_of_the_architecture() -> dict[str, set[str]]:
    """Return the packages to which each package has an arrow in the picture of CONTRIBUTING."""
    _, _, text = (ROOT / "CONTRIBUTING.md").read_text().partition("```mermaid")
    found: dict[str, set[str]] = {}
    for line in text.partition("```")[0].splitlines():
        ends = [end.split(" & ") for end in line.strip().split(" --> ")]
        for sources, targets in pairwise(ends):
            for source in sources:
                found.setdefault(source, set()).update(targets)
    return found


def reachable(name: str, arrows: dict[str, set[str]]) -> set[str]:
    """Return the packages that the arrows reach from a package."""
    below = arrows.get(name, set())
    return below.union(*(reachable(each, arrows) for each in below))


def test_packages_import_what_the_picture_of_the_architecture_shows() -> None:
    arrows, root = arrows_of_the_architecture(), ROOT / "intergiro_provider"
    assert len(arrows) > 10
    TopologicalSorter(arrows).prepare()  # raises an error if there is a cycle
    packages = {init.parent.name for init in root.glob("*/__init__.py")}
    wrong = set()
    for package in packages - {"sandbox"}:
        below = reachable(package, arrows) | {package}
        for path in (root / package).rglob("*.py"):
            imported = set(re.findall(r"^\s*(?:from|import) intergiro_provider\.(\w+)", path.read_text(), re.MULTILINE))
            wrong |= {f"{path.relative_to(root)} imports {name}" for name in imported & packages - below}
    assert wrong == set()


def test_pictures_are_there_and_light() -> None:
    shown = {
        (path.parent / target).resolve()
        for path in pages()
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", path.read_text())
    }
    assert len(shown) > 5
    assert [path for path in shown if not path.is_file()] == []
    kept = set((DOCS / "_static").glob("*.png"))
    assert [path.name for path in kept - shown] == [], "pictures that no page shows"
    assert [path.name for path in kept if path.stat().st_size > HEAVIEST] == []
