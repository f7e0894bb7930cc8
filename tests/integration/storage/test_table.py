# SPDX-License-Identifier: Apache-2.0
"""The page agrees with the measurements, and every row has a test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.integration.storage import test_bank_failures, test_s3_failures
from tests.integration.storage.table import CHAPTERS, DOCUMENT, ROWS, document

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def names_in(path: Path) -> set[str]:
    """Return the names of the tests in a module; methods as `Class::name`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return found


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m tests.integration.storage.table"


def test_every_row_has_its_test() -> None:
    here = {*test_bank_failures.FAULTS, *test_bank_failures.STRIKES, *test_s3_failures.FAULTS}
    for path in Path(__file__).parent.glob("test_*_failures.py"):
        here |= {name.removeprefix("test_") for name in names_in(path)}
    assert sum(map(len, CHAPTERS.values())) == len(ROWS)
    for name, row in ROWS.items():
        if row.proof:
            path, _, test = row.proof.partition("::")
            assert test in names_in(ROOT / path)
        else:
            assert name in here
