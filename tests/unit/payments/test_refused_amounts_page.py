# SPDX-License-Identifier: Apache-2.0
"""The page "Pay" gives each refused amount the message that it has."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import minor_units

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "pay.md"
REFUSED: dict[str, tuple[Any, str | None]] = {
    "`125.0`": (125.0, None),
    "`True`": (True, None),
    "`0`": (0, None),
    "`-1`": (-1, None),
    "`2**53`": (2**53, None),
    '`"a lot"`': ("a lot", None),
    '`"125.00"` without `currency`': ("125.00", None),
    '`"125"` with `currency="EUR"`': ("125", "EUR"),
    '`Decimal("125.00")` without `currency`': (Decimal("125.00"), None),
    '`Decimal("NaN")` with `currency="EUR"`': (Decimal("NaN"), "EUR"),
    '`Decimal("1.001")` with `currency="EUR"`': (Decimal("1.001"), "EUR"),
    '`Decimal("1")` with `currency="euros"`': (Decimal(1), "euros"),
}


@pytest.mark.parametrize("written", REFUSED)
def test_the_page_has_the_message_of_a_refused_amount(written: str) -> None:
    with pytest.raises(IntergiroValueError) as refused:
        minor_units(*REFUSED[written])
    assert f"| {written} | {refused.value} |" in PAGE.read_text().splitlines()
