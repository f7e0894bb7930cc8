# SPDX-License-Identifier: Apache-2.0
"""The payments campaign's comparison finds a payment that was made twice, or that is missing."""

from __future__ import annotations

import pytest

from scripts.payments_figures import Figures


@pytest.mark.parametrize(
    ("paid", "states", "wanted", "twice", "silent", "missing"),
    [
        (["k"], ["success"], 1, 0, 0, 0),
        (["k", "l"], ["success"], 1, 1, 0, 0),
        (["k", "k"], ["success", "success"], 2, 1, 0, 0),  # one of two was paid twice, the other not at all
        ([], ["success"], 1, 0, 1, 0),
        ([], ["failed"], 1, 0, 0, 1),
        ([], ["success", "failed"], 2, 0, 1, 1),
        (["k"], ["success", "failed"], 2, 0, 0, 1),
        (["k"], ["success", "success"], 1, 0, 0, 0),  # two tasks, one payment
        (["k"], [], 0, 1, 0, 0),  # a refused payment was made
    ],
)
def test_compare(paid: list[str], states: list[str], wanted: int, twice: int, silent: int, missing: int) -> None:
    figures = Figures("a bank")
    figures.compare([{"reference": "r", "request_id": key} for key in paid], {"r": states}, {"r": wanted})
    assert (figures.twice, figures.missing_silently, figures.missing_reported) == (twice, silent, missing)
