# SPDX-License-Identifier: Apache-2.0
"""Adapt the columns of a table to a pull: add columns, and widen types."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.load import amounts
from intergiro_provider.load.target import quoted
from intergiro_provider.load.warehouse import Warehouse
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type, unite

log = logging.getLogger(__name__)


def adapt(
    warehouse: Warehouse, have: dict[str, Type], fields: Mapping[str, Type]
) -> tuple[dict[str, Type], dict[str, Type]]:
    """Adapt the table; return its columns, and those that the source fills."""
    columns, new = dict(have), []
    staged: dict[str, Type] = {}
    for name, found in fields.items():
        if name not in have:
            type_ = warehouse.normal(found)
            if type_ is Kind.NULL:
                continue
            new.append(name)
            if warehouse.target.on_new_field == "ignore" and (have or not warehouse.accepts(name, columns)):
                continue
            _check_name(warehouse, name, columns)
            columns[name] = staged[name] = type_
        elif found is not Kind.NULL:
            if have[name] is Kind.INT64 and found is Kind.DOUBLE and _is_small(warehouse, name):
                have[name] = Kind.INT53
            # What has no value in this pull gets its type from the table, so that [] and {} stay what they are.
            wide = warehouse.normal(unite(have[name], found))
            if added := _added_names(have[name], wide):
                new += [f"{name}.{each}" for each in added]
                if warehouse.target.on_new_field != "add":
                    wide = _without_new(wide, have[name])
            columns[name] = staged[name] = wide
    if have:
        _mention(warehouse, new)
    _alter(warehouse, have, columns)
    return columns, staged


def _check_name(warehouse: Warehouse, name: str, columns: Mapping[str, Type]) -> None:
    if not warehouse.accepts(name, columns):
        raise IntergiroValueError(
            f"`table`: {warehouse.target.name} cannot have a column for the field {name!r}: the name is too long, "
            "reserved, or differs from another one in case only. To load the other fields, set on_new_field='ignore'"
        )


def _mention(warehouse: Warehouse, new: list[str]) -> None:
    if not new:
        return
    names = ", ".join(new)
    if warehouse.target.on_new_field == "fail":
        raise IntergiroValueError(
            f"`on_new_field` is 'fail', and {warehouse.target.name} has no column for {names}; use 'add' or 'ignore'"
        )
    what = "get columns" if warehouse.target.on_new_field == "add" else "are not loaded"
    log.warning("%s: new fields %s: %s", warehouse.target.name, what, names)


def _is_small(warehouse: Warehouse, column: str) -> bool:
    """Return whether a double holds every integer of a column."""
    name = quoted(column)
    limits = warehouse.execute(f"SELECT min({name}), max({name}) FROM {warehouse.target.table}").fetchone()
    return all(limit is None or abs(limit) <= 2**53 for limit in limits)


def _alter(warehouse: Warehouse, have: Mapping[str, Type], columns: Mapping[str, Type]) -> None:
    if not have:
        if columns:
            warehouse.create(warehouse.target.table, columns)
            amounts.create_view(warehouse, columns)
        return
    changes = {
        name: type_
        for name, type_ in columns.items()
        if name not in have or warehouse.sql(have[name]) != warehouse.sql(type_)
    }
    if not changes:
        return
    history = warehouse.columns(warehouse.target.history_table)
    if not changes.keys().isdisjoint(have):
        amounts.drop_view(warehouse)
    for table, there in ((warehouse.target.table, have), (warehouse.target.history_table, history)):
        if there is None:
            continue
        for name, type_ in changes.items():
            _change_column(warehouse, table, name, there.get(name), type_)
    amounts.create_view(warehouse, columns)


def _change_column(warehouse: Warehouse, table: str, name: str, had: Type | None, wanted: Type) -> None:
    column, sql = quoted(name), warehouse.sql(wanted)
    if had is None:
        warehouse.execute(f"ALTER TABLE {table} ADD COLUMN {column} {sql}")
    else:
        using = warehouse.converted(column, had, wanted)
        log.warning("%s: the column %s becomes %s", warehouse.target.name, name, sql)
        warehouse.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {sql} USING {using}")


def _added_names(had: Type, wide: Type) -> list[str]:
    """Return the new fields of nested objects."""
    if isinstance(had, StructOf) and isinstance(wide, StructOf):
        return [
            f"{name}.{inner}" if inner else name
            for name, type_ in wide.fields.items()
            for inner in ([""] if name not in had.fields else _added_names(had.fields[name], type_))
        ]
    if isinstance(had, ListOf) and isinstance(wide, ListOf):
        return _added_names(had.element, wide.element)
    return []


def _without_new(wide: Type, had: Type) -> Type:
    if isinstance(had, StructOf) and isinstance(wide, StructOf):
        return StructOf({name: _without_new(wide.fields[name], inner) for name, inner in had.fields.items()})
    if isinstance(had, ListOf) and isinstance(wide, ListOf):
        return ListOf(_without_new(wide.element, had.element))
    return wide
