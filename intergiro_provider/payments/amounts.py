# SPDX-License-Identifier: Apache-2.0
"""Amounts of money: an int in minor units (cents), or a Decimal with its currency. Never a float."""

from __future__ import annotations

import functools
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError

MAX_AMOUNT = 2**53 - 1
"""The largest integer that every JSON parser reads exactly."""
MAX_DIGITS = 40
"""The most digits of an amount. With more, int and Fraction are slow or raise an error."""
INSTALL_COMMAND = "pip install 'airflow-provider-intergiro[payments]'"


def minor_units(amount: Any, currency: str | None, where: str = "`amount`") -> int:
    """Return an amount in minor units, such as cents.

    :param amount: an int in minor units, or a Decimal in major units of the currency. A string, such as from
        a template, is accepted if it is unambiguous: digits without a currency are minor units; digits with all
        decimals of the currency, such as ``125.00``, are major units.
    :param currency: ISO 4217 code; None: the amount is in minor units.
    :param where: the name of the amount in a message.
    :raises IntergiroValueError: for any other value. The message does not show the amount.
    """
    if isinstance(amount, bool) or amount is None:
        raise _refused(where, f"is {amount!r}", "Give an int in minor units (cents), or a Decimal with a currency.")
    if isinstance(amount, float):
        raise _refused(
            where, "is a float, which cannot hold most amounts exactly",
            "Give an int in minor units (cents), or a Decimal with a currency.",
        )  # fmt: skip
    decimals = None if currency is None else _decimals_of(currency)
    if isinstance(amount, str):
        amount = _parse(amount.strip(), decimals, where)
    if isinstance(amount, Decimal):
        amount = _from_decimal(amount, decimals, where)
    if not isinstance(amount, int):
        raise _refused(
            where, f"is a value of type {type(amount).__name__}",
            "Give an int in minor units (cents), or a Decimal with a currency.",
        )  # fmt: skip
    if amount <= 0:
        raise _refused(where, "is zero" if amount == 0 else "is negative", "Give an amount above zero.")
    if amount > MAX_AMOUNT:
        raise _refused(where, "is larger than 2^53 - 1 minor units", "Check it.")
    return amount


def check_currency(currency: Any, where: str = "`currency`") -> str | None:
    """Return an ISO 4217 code in capitals; None if `currency` is None.

    :param where: the name of the currency in a message.
    :raises IntergiroValueError: there is no such currency, or it has no minor unit.
    """
    if currency is None:
        return None
    code = currency.strip().upper() if isinstance(currency, str) else ""
    if not re.fullmatch("[A-Z]{3}", code):
        is_shown = re.fullmatch("[A-Za-z]{1,5}", code) is not None  # a longer value may be account data
        raise _refused(where, f"is {currency if is_shown else '<not shown>'!r}", "Give an ISO 4217 code such as 'EUR'.")
    _decimals_of(code)
    return code


@functools.cache
def _decimals_of(currency: str) -> int:
    """Return the number of decimals of a currency."""
    try:
        from iso4217 import Currency  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise IntergiroValueError(
            f"`currency` needs the package iso4217, which is not installed. Install it: {INSTALL_COMMAND}. Or give "
            "`amount` as an int in minor units, without `currency`."
        ) from None
    try:
        decimals = Currency(currency).exponent
    except ValueError:
        decimals = None
    if decimals is None:
        raise _refused("`currency`", f"is {currency!r}", "Give an ISO 4217 currency that has minor units.")
    return int(decimals)


def _parse(text: str, decimals: int | None, where: str) -> int | Decimal:
    """Return the number in a string.

    :param decimals: of the currency; None: there is no currency.
    """
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        raise _refused(where, "is a string that is not a number", "Check the template that it comes from.")
    if len(text) > MAX_DIGITS:
        raise _refused(where, "is larger than 2^53 - 1 minor units", "Check it.")
    given = len(text.partition(".")[2])
    if decimals is None:
        if given:
            raise _refused(where, "has decimals but no currency", "Set `currency`, or give minor units (cents).")
        return int(text)
    if given != decimals:
        raise _refused(
            where, f"is a string with {given} decimals, but its currency has {decimals}",
            "It could mean major or minor units. Write all decimals, such as '125.00', or remove `currency` and give "
            "minor units.",
        )  # fmt: skip
    return Decimal(text)


def _from_decimal(amount: Decimal, decimals: int | None, where: str) -> int:
    if not amount.is_finite():
        raise _refused(where, f"is {amount}", "Give a finite amount.")
    if amount.adjusted() > MAX_DIGITS:
        raise _refused(where, "is larger than 2^53 - 1 minor units", "Check it.")
    if decimals is None:
        raise _refused(where, "is a Decimal without a currency", "Set `currency`, such as 'EUR'.")
    scaled = Fraction(amount) * 10**decimals  # exact, while Decimal's arithmetic rounds to 28 digits
    if scaled.denominator != 1:
        raise _refused(
            where, f"has more decimals than the {decimals} of its currency",
            "Round it. If it comes from an XCom, Airflow has turned the Decimal into a float: pass an int in minor "
            "units, or a string.",
        )  # fmt: skip
    return int(scaled)


def _refused(where: str, what: str, remedy: str) -> IntergiroValueError:
    return IntergiroValueError(f"{where} {what}. {remedy} Nothing was sent.")
