# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from intergiro_provider.payments.look_up import differences
from intergiro_provider.payments.plan import Payment

KEY = "5d9a1d0e-2f53-5d43-9a3f-0a4c2f5e7b11"
PAYMENT = Payment("move", "a", 5, unicodedata.normalize("NFD", "Hyra  Åsa"), "EUR", None, "b")


@pytest.mark.parametrize(
    ("shown", "differ"),
    [
        ({}, []),
        ({"amount": -5, "currency": "eur", "reference": "Hyra Åsa", "request_id": KEY.upper()}, []),
        ({"reference": "Hyra Asa"}, ["reference"]),
        ({"request_id": KEY[:-1] + "2"}, ["request_id"]),
        ({"amount": 6, "currency": "SEK"}, ["amount", "currency"]),
    ],
)
def test_differences(shown: dict[str, Any], differ: list[str]) -> None:
    assert differences(PAYMENT, shown, KEY) == differ
