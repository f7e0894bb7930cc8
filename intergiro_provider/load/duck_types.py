# SPDX-License-Identifier: Apache-2.0
"""Types of DuckDB's columns, and expressions that convert between them without loss.

DuckDB's JSON functions round numbers to doubles, also inside JSON values. Therefore JSON text is only ever copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from intergiro_provider.load.target import literal, quoted
from intergiro_provider.pull.rows import has_text
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type, finalize

TYPES = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INT53: "BIGINT",
    Kind.INT64: "BIGINT",
    Kind.INT128: "HUGEINT",
    Kind.DOUBLE: "DOUBLE",
    Kind.TIMESTAMP: "TIMESTAMPTZ",
    Kind.STRING: "VARCHAR",
    Kind.JSON: "JSON",
}
STORED = {**TYPES, Kind.JSON: "VARCHAR", Kind.INT128: "VARCHAR"}
"""The types of the files, in which JSON is a string."""
_KINDS = {
    "BOOLEAN": Kind.BOOLEAN,
    "BIGINT": Kind.INT64,
    "HUGEINT": Kind.INT128,
    "DOUBLE": Kind.DOUBLE,
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMP,
    "VARCHAR": Kind.STRING,
    "JSON": Kind.JSON,
}


def sql_of(type_: Type, types: Mapping[Kind, str] = TYPES) -> str:
    """Return DuckDB's name of a type."""
    match type_:
        case StructOf(fields):
            return f"STRUCT({', '.join(f'{quoted(name)} {sql_of(inner, types)}' for name, inner in fields.items())})"
        case ListOf(element):
            return f"{sql_of(element, types)}[]"
        case Kind():
            return types[type_]


def kind_of(type_: Any) -> Type | None:
    """Return the type of a column from DuckDB's description; None if a load does not use this type."""
    if type_.id == "struct":
        fields: dict[str, Type] = {}
        for name, inner in type_.children:
            if (kind := kind_of(inner)) is None:
                return None
            fields[name] = kind
        return StructOf(fields)
    if type_.id == "list":
        kind = kind_of(type_.children[0][1])
        return None if kind is None else ListOf(kind)
    return _KINDS.get(str(type_))


def filled(found: Type, wanted: Type) -> Type:
    """Return the type found in a Parquet file with the column's type for what has no value in the file."""
    match found, wanted:
        case Kind.NULL, _:
            return wanted
        case StructOf(fields), StructOf() if fields:
            known = wanted.fields
            return StructOf(
                {name: filled(each, known[name]) if name in known else finalize(each) for name, each in fields.items()}
            )
        case ListOf(element), ListOf():
            return ListOf(filled(element, wanted.element))
    return finalize(found)


def converted(column: str, had: Type, wanted: Type, depth: int = 0) -> str:
    """Return an expression that casts a (quoted) column from one type to a wider one."""
    if sql_of(had) == sql_of(wanted):
        return column
    match had, wanted:
        case _, Kind.JSON:
            return f"CAST({_json_text(column, had, depth)} AS JSON)" if has_text(had) else f"to_json({column})"
        case Kind.TIMESTAMP, Kind.STRING:
            return f"strftime({column}, '%Y-%m-%dT%H:%M:%S.%fZ')"
        case StructOf(), StructOf():  # not a cast, which would parse strings as JSON
            fields = ", ".join(
                f"{quoted(name)} := "
                + (
                    converted(_field(column, name), had.fields[name], inner, depth)
                    if name in had.fields
                    else f"CAST(NULL AS {sql_of(inner)})"
                )
                for name, inner in wanted.fields.items()
            )
            return f"CASE WHEN {column} IS NOT NULL THEN struct_pack({fields}) END"
        case ListOf(), ListOf():
            one = f"e{depth}"
            return f"list_transform({column}, lambda {one}: {converted(one, had.element, wanted.element, depth + 1)})"
    return f"CAST({column} AS {sql_of(wanted)})"


def _json_text(column: str, had: Type, depth: int) -> str:
    """Return an expression for the JSON text of a column that may contain JSON; NULL for NULL."""
    match had:
        case Kind.JSON:
            return f"CAST({column} AS VARCHAR)"
        case StructOf(fields):
            parts = [
                f"{literal(json.dumps(name, ensure_ascii=False) + ':')} || "
                f"coalesce({_json_text(_field(column, name), inner, depth)}, 'null')"
                for name, inner in fields.items()
            ]
            text = " || ',' || ".join(parts)
            return f"CASE WHEN {column} IS NOT NULL THEN '{{' || {text} || '}}' END"
        case ListOf(element):
            text = f"coalesce({_json_text(f'e{depth}', element, depth + 1)}, 'null')"
            return f"'[' || array_to_string(list_transform({column}, lambda e{depth}: {text}), ',') || ']'"
    return f"CAST(to_json({column}) AS VARCHAR)"


def _field(column: str, name: str) -> str:
    return f"struct_extract({column}, {literal(name)})"  # an older DuckDB takes `e0.name` for a column of a table
