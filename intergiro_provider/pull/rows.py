# SPDX-License-Identifier: Apache-2.0
"""Records as lines that Arrow's JSON reader takes for what they are.

It reads most lines as they came. But it wants objects, it has no type for a value's JSON text, and it refuses a name
that an object has twice, and some spellings of a moment. Such lines are written anew here.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

LONELY = "value"
"""The column of records that are no objects, or have no common structure."""

AS_JSON = (Kind.TEXT, Kind.HUGE)
"""Kinds whose values are kept as their JSON text: Arrow has no wider type that its JSON reader knows."""

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_moment = msgspec.json.Decoder(datetime).decode
_encode = msgspec.json.encode


def columns_of(type_: Type) -> dict[str, Type]:
    """The columns for records of this type."""
    return type_.fields if isinstance(type_, StructOf) else {LONELY: type_}


def has_text(type_: Type) -> bool:
    """Whether some value in it is kept as its JSON text."""
    match type_:
        case StructOf(fields):
            return any(map(has_text, fields.values()))
        case ListOf(element):
            return has_text(element)
    return type_ in AS_JSON


def wrapped(lines: bytes) -> bytes:
    """Lines of records that are no objects, as objects with one field."""
    head = b'{"' + LONELY.encode() + b'":'
    return b"".join(head + line + b"}\n" for line in lines.split(b"\n")[:-1])


def rewritten(lines: bytes, columns: dict[str, Type]) -> bytes:
    """The same records, written so that each can be read as its columns say: of a name that is there twice the last
    counts, as for most readers of JSON."""
    record = StructOf(columns)
    return b"".join(_rewrite(line, record) + b"\n" for line in lines.split(b"\n")[:-1])


def _rewrite(value: bytes, type_: Type) -> bytes:
    if value == b"null":
        return value
    match type_:
        case StructOf(fields):
            inner = _decode_object(value)
            return _encode({name: msgspec.Raw(_rewrite(bytes(each), fields[name])) for name, each in inner.items()})
        case ListOf(element):
            return _encode([msgspec.Raw(_rewrite(bytes(each), element)) for each in _decode_list(value)])
        case Kind.TEXT | Kind.HUGE:
            return _encode(value.decode())
        case Kind.MOMENT:
            return _encode(_decode_moment(value))
    return value
