# SPDX-License-Identifier: Apache-2.0
"""The page agrees with the measurements, and every row has a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.integration.outages.table import DOCUMENT, ROWS, document

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def names_in(path: Path) -> set[str]:
    names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {name for name in names if name.startswith("test_")}


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m tests.integration.outages.table"


def test_every_row_has_its_test() -> None:
    here = set[str]().union(*(names_in(path) for path in Path(__file__).parent.glob("test_*_outages.py")))
    assert here == {f"test_{name}" for name, row in ROWS.items() if not row.proof}
    for row in ROWS.values():
        if row.proof:
            path, _, name = row.proof.partition("::")
            assert name in names_in(ROOT / path)
