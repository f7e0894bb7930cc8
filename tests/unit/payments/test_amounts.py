# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments import amounts
from intergiro_provider.payments.amounts import check_currency, minor_units


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (1, None, 1),
        (12500, "EUR", 12500),
        ("12500", None, 12500),
        (Decimal("125"), "EUR", 12500),
        (Decimal("125.5"), "EUR", 12550),
        (Decimal("0.01"), "SEK", 1),
        ("125.00", "EUR", 12500),
        (Decimal("125"), "JPY", 125),
        ("125", "JPY", 125),
        (Decimal("1.234"), "KWD", 1234),
        (Decimal("1E+3"), "EUR", 100000),
        (2**53 - 1, None, 2**53 - 1),
    ],
)
def test_accepted(amount: Any, currency: str | None, minor: int) -> None:
    assert minor_units(amount, currency) == minor


REFUSED: list[tuple[Any, str | None, str]] = [
    (12.5, None, "is a float"),
    ("9" * 5000, None, "is larger than"),
    (Decimal("1E+999999999"), "EUR", "is larger than"),
    (12.5, "EUR", "is a float"),
    (float("nan"), None, "is a float"),
    (0, None, "is zero"),
    (Decimal("0.00"), "EUR", "is zero"),
    ("0", None, "is zero"),
    (-1, None, "is negative"),
    (Decimal("-1"), "EUR", "is negative"),
    ("-1", None, "is negative"),
    (True, None, "is True"),
    (None, None, "is None"),
    (Decimal("1.005"), "EUR", "has more decimals than the 2"),
    (Decimal("1.5"), "JPY", "has more decimals than the 0"),
    (Decimal(125.1), "EUR", "comes from an XCom"),  # noqa: RUF032
    (Decimal("1.00000000000000000000000000000000000000001"), "EUR", "has more decimals"),
    (Decimal("NaN"), "EUR", "is NaN"),
    (Decimal("Infinity"), "EUR", "is Infinity"),
    (Decimal("125"), None, "is a Decimal without a currency"),
    ("125.00", None, "has decimals but no currency"),
    ("125", "EUR", "a string with 0 decimals, but its currency has 2"),
    ("125.0", "EUR", "a string with 1 decimals"),
    ("1,250.00", "EUR", "is a string that is not a number"),
    ("", None, "is a string that is not a number"),
    ("١٢", None, "is a string that is not a number"),
    ("1e3", None, "is a string that is not a number"),
    ([1], None, "is a value of type list"),
    (2**53, None, "is larger than"),
]


@pytest.mark.parametrize(("amount", "currency", "problem"), REFUSED)
def test_refused(amount: Any, currency: str | None, problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem) as caught:
        minor_units(amount, currency)
    assert "Nothing was sent" in str(caught.value)


@pytest.mark.parametrize(("given", "code"), [(None, None), ("EUR", "EUR"), (" eur ", "EUR")])
def test_currencies(given: Any, code: str | None) -> None:
    assert check_currency(given) == code


@pytest.mark.parametrize("given", ["", "EURO", "ABC", "XAU", 978, "ÄÖÜ"])
def test_what_is_no_currency(given: Any) -> None:
    with pytest.raises(IntergiroValueError, match="currency"):
        check_currency(given)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iso4217", None)
    amounts._decimals_of.cache_clear()
    with pytest.raises(IntergiroValueError, match=r"airflow-provider-intergiro\[payments\]"):
        check_currency("EUR")
    assert minor_units(5, None) == 5
