# SPDX-License-Identifier: Apache-2.0
"""Amounts as people write them: minor units and the currency's exponent → a decimal number, in a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from intergiro_provider.load.target import quoted
from intergiro_provider.pull.schema import Kind, Type

if TYPE_CHECKING:
    from intergiro_provider.load.warehouse import Warehouse

CURRENCIES = "intergiro_currencies"

# ISO 4217: every currency has two decimals, but these.
_WITHOUT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
_TWO = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP "
    "CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES "
    "KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK "
    "NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
    "TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD XCG YER ZAR ZMW ZWG"
)
EXPONENTS = {
    code: exponent for exponent, codes in ((0, _WITHOUT), (2, _TWO), (3, _THREE), (4, _FOUR)) for code in codes.split()
}
_DIGITS = 4


def create_currencies(warehouse: Warehouse) -> None:
    """Create the table of currencies, where it is missing; rows that are there stay as they are."""
    table, text, whole = (
        warehouse.target.beside(CURRENCIES),
        warehouse.types[Kind.STRING],
        warehouse.types[Kind.INTEGER],
    )
    if warehouse.columns(table) is not None:
        return
    warehouse.execute(
        f"CREATE TABLE {table} (currency {text} PRIMARY KEY, exponent {whole}, unit NUMERIC({_DIGITS + 1},{_DIGITS}))"
    )
    rows = ", ".join(f"('{code}', {exponent}, {10.0**-exponent:.4f})" for code, exponent in sorted(EXPONENTS.items()))
    warehouse.execute(f"INSERT INTO {table} (currency, exponent, unit) VALUES {rows}")


def amounts_of(columns: Mapping[str, Type]) -> Iterator[tuple[str, str]]:
    """Yield the columns with amounts in minor units, each with the column of its currency."""
    for name, type_ in columns.items():
        currency = "currency" if name in ("amount", "balance") else name.removesuffix("_amount") + "_currency"
        if (
            type_ in (Kind.SMALL, Kind.INTEGER, Kind.HUGE)
            and (name in ("amount", "balance") or name.endswith("_amount"))
            and columns.get(currency) is Kind.STRING
        ):
            yield name, currency


def _view(warehouse: Warehouse) -> str:
    return warehouse.target.beside(f"{warehouse.target.bare}_amounts")


def create_view(warehouse: Warehouse, columns: Mapping[str, Type]) -> None:
    """Create or replace ``<table>_amounts``: the table, and each amount once more as a decimal number.

    Of a currency that ``intergiro_currencies`` does not have, that is NULL.
    """

    found = dict(amounts_of(columns))
    if not found:
        return
    target = warehouse.target
    joins, shown = "", {name: f"t.{quoted(name)}" for name in columns}
    for number, (name, currency) in enumerate(found.items()):
        joins += f" LEFT JOIN {target.beside(CURRENCIES)} c{number} ON c{number}.currency = t.{quoted(currency)}"
        wide = f"CAST(t.{quoted(name)} AS NUMERIC({38 - _DIGITS - 1},0))"
        shown[f"{name}_decimal"] = f"{wide} * c{number}.unit"
    # What the view has already comes first, so that views upon it stay as they are.
    order = [*(name for name in warehouse.columns(_view(warehouse)) or () if name in shown)]
    order += [name for name in shown if name not in order]
    listed = ", ".join(f"{shown[name]} AS {quoted(name)}" for name in order)
    warehouse.execute(f"CREATE OR REPLACE VIEW {_view(warehouse)} AS SELECT {listed} FROM {target.table} t{joins}")


def drop_view(warehouse: Warehouse) -> None:
    """Drop the view, which would keep a column's type from changing."""
    warehouse.execute(f"DROP VIEW IF EXISTS {_view(warehouse)}")
