# SPDX-License-Identifier: Apache-2.0
"""Rewrite JSON lines for Arrow's JSON reader, if necessary.

The reader accepts most lines as the bank sent them. It does not accept records that are no objects, a name twice in an
object, and some forms of a time. It has no type for JSON text. Such lines are rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

VALUE = "value"
"""The column for records that are no objects, or have no common structure."""

AS_JSON = (Kind.JSON, Kind.INT128)
"""Types whose values are stored as JSON text, because Arrow's JSON reader has no wider type."""

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_time = msgspec.json.Decoder(datetime).decode
_encode = msgspec.json.encode


def columns_of(type_: Type) -> dict[str, Type]:
    """Return the columns for records of this type."""
    return type_.fields if isinstance(type_, StructOf) else {VALUE: type_}


def has_text(type_: Type) -> bool:
    """Return whether a value of this type is stored as JSON text."""
    match type_:
        case StructOf(fields):
            return any(map(has_text, fields.values()))
        case ListOf(element):
            return has_text(element)
    return type_ in AS_JSON


def wrapped(lines: bytes) -> bytes:
    """Return lines of records that are no objects as objects with one field."""
    head = b'{"' + VALUE.encode() + b'":'
    return b"".join(head + line + b"}\n" for line in lines.split(b"\n")[:-1])


def rewritten(lines: bytes, columns: Mapping[str, Type]) -> bytes:
    """Return the same records in a form that fits their columns. If a name is there twice, the last value counts, as in
    most JSON readers. Fields without a type stay as they are."""
    record = StructOf(dict(columns))
    return b"".join(_rewrite(line, record) + b"\n" for line in lines.split(b"\n")[:-1])


def _rewrite(value: bytes, type_: Type) -> bytes:
    if value == b"null":
        return value
    match type_:
        case StructOf(fields):
            inner = _decode_object(value)
            return _encode(
                {name: msgspec.Raw(_rewrite(bytes(each), fields.get(name, Kind.NULL))) for name, each in inner.items()}
            )
        case ListOf(element):
            return _encode([msgspec.Raw(_rewrite(bytes(each), element)) for each in _decode_list(value)])
        case Kind.JSON | Kind.INT128:
            return _encode(value.decode())
        case Kind.TIMESTAMP:
            return _encode(_decode_time(value))
    return value
