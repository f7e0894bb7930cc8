# SPDX-License-Identifier: Apache-2.0
"""The view with decimal amounts, computed from minor units and the currency's exponent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.load.target import quoted
from intergiro_provider.load.warehouse import Warehouse
from intergiro_provider.pull.schema import Kind, Type

CURRENCIES = "intergiro_currencies"

_DIGITS = 4


def create_currencies(warehouse: Warehouse) -> None:
    """Create the table of currencies if it is missing; existing rows stay unchanged."""
    table, text, whole = (
        warehouse.target.beside(CURRENCIES),
        warehouse.types[Kind.STRING],
        warehouse.types[Kind.INT64],
    )
    if warehouse.columns(table) is not None:
        return
    exponents = _exponents()
    warehouse.execute(
        f"CREATE TABLE {table} (currency {text} PRIMARY KEY, exponent {whole}, unit NUMERIC({_DIGITS + 1},{_DIGITS}))"
    )
    rows = ", ".join(f"('{code}', {exponent}, {10.0**-exponent:.4f})" for code, exponent in sorted(exponents.items()))
    warehouse.execute(f"INSERT INTO {table} (currency, exponent, unit) VALUES {rows}")


def _exponents() -> dict[str, int]:
    """Return the number of decimals of each currency of ISO 4217."""
    try:
        from iso4217 import Currency  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise IntergiroValueError(
            f"A load needs the package iso4217, which is not installed ({error}). Install the extra of your database: "
            "pip install 'airflow-provider-intergiro[duckdb]' or [postgres]"
        ) from error
    return {each.code: each.exponent for each in Currency if each.exponent is not None}  # gold has none


def amounts_of(columns: Mapping[str, Type]) -> Iterator[tuple[str, str]]:
    """Yield the columns with amounts in minor units, each with the column of its currency."""
    for name, type_ in columns.items():
        currency = "currency" if name in ("amount", "balance") else name.removesuffix("_amount") + "_currency"
        if (
            type_ in (Kind.INT53, Kind.INT64, Kind.INT128)
            and (name in ("amount", "balance") or name.endswith("_amount"))
            and columns.get(currency) is Kind.STRING
        ):
            yield name, currency


def _view(warehouse: Warehouse) -> str:
    return warehouse.target.beside(f"{warehouse.target.bare}_amounts")


def create_view(warehouse: Warehouse, columns: Mapping[str, Type]) -> None:
    """Create or replace ``<table>_amounts``: the table, with each amount also as a decimal number.

    The decimal amount is NULL if ``intergiro_currencies`` does not have the currency.
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
    # Existing columns come first, so that views that depend on this one stay valid.
    order = [*(name for name in warehouse.columns(_view(warehouse)) or () if name in shown)]
    order += [name for name in shown if name not in order]
    listed = ", ".join(f"{shown[name]} AS {quoted(name)}" for name in order)
    warehouse.execute(f"CREATE OR REPLACE VIEW {_view(warehouse)} AS SELECT {listed} FROM {target.table} t{joins}")


def drop_view(warehouse: Warehouse) -> None:
    """Drop the view, which would prevent a change of a column's type."""
    warehouse.execute(f"DROP VIEW IF EXISTS {_view(warehouse)}")
