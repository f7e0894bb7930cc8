# SPDX-License-Identifier: Apache-2.0
"""`docs/packages.md` is the script's output, and covers all environments."""

from __future__ import annotations

import re

from scripts.package_matrix import CONSTRAINED, INTRO, MATRIX, ROOT


def test_the_page_has_a_row_for_each_environment() -> None:
    text = (ROOT / "docs" / "packages.md").read_text()
    assert text.startswith(INTRO)
    assert CONSTRAINED in text
    rows = re.findall(r"^\| (\d+\.\d+)\.\d+ \| (\d+\.\d+)\.\d+ \|", text, re.MULTILINE)
    assert tuple(rows) == MATRIX
