# SPDX-License-Identifier: Apache-2.0
"""Amounts of money: whole minor units (cents), or a Decimal with its currency. Never a float."""

from __future__ import annotations

import functools
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader takes exactly."""
EXTRA = "pip install 'airflow-provider-intergiro[payments]'"


def minor_units(amount: Any, currency: str | None, where: str = "`amount`") -> int:
    """Return an amount in minor units, such as cents.

    :param amount: an int in minor units, or a Decimal in the currency's major unit. Text, which templates render to,
        is accepted where it can mean one thing only: digits without a currency are minor units; digits with all of
        the currency's decimals, such as ``125.00``, are major units.
    :param currency: ISO 4217 code; None for an amount in minor units.
    :param where: how the message names the amount.
    :raises IntergiroValueError: for anything else. The message does not quote the amount.
    """
    if isinstance(amount, bool) or amount is None:
        raise _refused(where, f"is {amount!r}", "Give an int in minor units (cents), or a Decimal with a currency.")
    if isinstance(amount, float):
        raise _refused(
            where, "is a float, which cannot hold most amounts exactly",
            "Give an int in minor units (cents), or a Decimal with a currency.",
        )  # fmt: skip
    exponent = None if currency is None else _exponent(currency)
    if isinstance(amount, str):
        amount = _read(amount.strip(), exponent, where)
    if isinstance(amount, Decimal):
        amount = _from_decimal(amount, exponent, where)
    if not isinstance(amount, int):
        raise _refused(
            where, f"is a {type(amount).__name__}", "Give an int in minor units (cents), or a Decimal with a currency."
        )
    if amount <= 0:
        raise _refused(where, "is zero" if amount == 0 else "is negative", "Give an amount above zero.")
    if amount > LARGEST:
        raise _refused(where, "is larger than 2^53 - 1 minor units", "Check it.")
    return amount


def check_currency(currency: Any, where: str = "`currency`") -> str | None:
    """Return an ISO 4217 code in capitals; None if none is given.

    :raises IntergiroValueError: there is no such currency, or it has no minor unit.
    """
    if currency is None:
        return None
    code = currency.strip().upper() if isinstance(currency, str) else ""
    if not re.fullmatch("[A-Z]{3}", code):
        raise _refused(where, f"is {currency!r}", "Give an ISO 4217 code such as 'EUR'.")
    _exponent(code)
    return code


@functools.cache
def _exponent(currency: str) -> int:
    """Return the number of decimals of a currency."""
    try:
        from iso4217 import Currency  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise IntergiroValueError(
            f"`currency` needs the package iso4217, which is not installed. Install it: {EXTRA}. Or give `amount` as "
            "an int in minor units, without `currency`."
        ) from None
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        exponent = None
    if exponent is None:
        raise _refused("`currency`", f"is {currency!r}", "ISO 4217 knows no such currency with a minor unit.")
    return int(exponent)


def _read(text: str, exponent: int | None, where: str) -> int | Decimal:
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        raise _refused(where, "is a text that is not a number", "Check the template that it comes from.")
    decimals = len(text.partition(".")[2])
    if exponent is None:
        if decimals:
            raise _refused(where, "has decimals but no currency", "Set `currency`, or give minor units (cents).")
        return int(text)
    if decimals != exponent:
        raise _refused(
            where, f"is a text with {decimals} decimals beside a currency that has {exponent}",
            "It could mean major or minor units: write all decimals, such as '125.00', or leave out `currency` and "
            "give minor units.",
        )  # fmt: skip
    return Decimal(text)


def _from_decimal(amount: Decimal, exponent: int | None, where: str) -> int:
    if not amount.is_finite():
        raise _refused(where, f"is {amount}", "Give a finite amount.")
    if exponent is None:
        raise _refused(where, "is a Decimal without a currency", "Set `currency`, such as 'EUR'.")
    scaled = Fraction(amount) * 10**exponent  # exact; Decimal's own arithmetic rounds to 28 digits
    if scaled.denominator != 1:
        raise _refused(
            where, f"has more decimals than the {exponent} of its currency",
            "Round it yourself. A Decimal that came through an XCom was a float on the way: send an int in minor "
            "units, or text.",
        )  # fmt: skip
    return int(scaled)


def _refused(where: str, what: str, remedy: str) -> IntergiroValueError:
    return IntergiroValueError(f"{where} {what}. {remedy} Nothing was sent.")
