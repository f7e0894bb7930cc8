# SPDX-License-Identifier: Apache-2.0
"""Infer the schema of a list: one type for each field, wide enough for every value of the field.

Two types unite to the narrowest type that holds the values of both without loss. If there is none, that is
:attr:`Kind.JSON`: the value's JSON text. Examples are a string in one record and an object in another, an integer
beyond 128 bits, and a number with more digits than a double holds. So every list has a schema, and the schema does not
depend on the order of the pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import reduce
from typing import Annotated, Any

import msgspec

MAX_DEPTH = 16
"""Levels of objects and lists. A value at a deeper level becomes JSON text."""
MAX_FIELDS = 1000
"""An object with more names than this, over all records, is a map and no structure. It becomes JSON text."""

_LIMIT_128 = 2**127
_SAFE = 2**53  # up to here a double holds every integer
_SHORT = 16  # a double holds every number of so many characters, with the point and without an exponent


class Kind(Enum):
    """A type other than objects and lists. The values are the names of the types in a manifest."""

    NULL = "null"
    """No value so far."""
    BOOLEAN = "boolean"
    INT53 = "int53"
    """Integers that a double holds, too."""
    INT64 = "int64"
    INT128 = "int128"
    DOUBLE = "double"
    """Numbers that a double holds to the last digit."""
    TIMESTAMP = "timestamp"
    """Date and time with an offset, to the microsecond."""
    STRING = "string"
    JSON = "json"
    """Any value, as its JSON text."""


@dataclass(frozen=True)
class ListOf:
    """Lists of one type."""

    element: Type


@dataclass(frozen=True)
class StructOf:
    """Objects: the names that any of them has, in the order in which they appeared."""

    fields: dict[str, Type]


Type = Kind | ListOf | StructOf

_BOTH = {
    frozenset({Kind.INT53, Kind.INT64}): Kind.INT64,
    frozenset({Kind.INT53, Kind.INT128}): Kind.INT128,
    frozenset({Kind.INT64, Kind.INT128}): Kind.INT128,
    frozenset({Kind.INT53, Kind.DOUBLE}): Kind.DOUBLE,
    frozenset({Kind.TIMESTAMP, Kind.STRING}): Kind.STRING,
}


def unite(one: Type, other: Type) -> Type:
    """Return the narrowest type that holds the values of both."""
    if one == other or other is Kind.NULL:
        return one
    if one is Kind.NULL:
        return other
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        return ListOf(unite(one.element, other.element))
    if isinstance(one, StructOf) and isinstance(other, StructOf):
        fields = dict(one.fields)
        for name, type_ in other.fields.items():
            fields[name] = unite(fields.get(name, Kind.NULL), type_)
        return StructOf(fields) if len(fields) <= MAX_FIELDS else Kind.JSON
    if isinstance(one, Kind) and isinstance(other, Kind):
        return _BOTH.get(frozenset({one, other}), Kind.JSON)
    return Kind.JSON


def unite_all(types: Iterable[Type]) -> Type:
    """Return the narrowest type that holds the values of all."""
    no_value: Type = Kind.NULL
    return reduce(unite, types, no_value)


KNOWN_NUMBERS = {
    "amount": Kind.INT64,
    "balance": Kind.INT64,
    "exchange_rate": Kind.DOUBLE,
    "exp_month": Kind.INT64,
    "exp_year": Kind.INT64,
    "payment_amount": Kind.INT64,
}
"""The types of the bank's documented fields. They apply on a day without a value, too, so the days fit together."""


def finalize(type_: Type, timestamps: bool = True, name: str = "") -> Type:
    """Return the type of a column, when all records are known.

    A field that never had a value becomes the type that the bank documents for its name, otherwise a string: some
    readers cannot read a column without a type. An object that never had a field becomes JSON text: no file can hold a
    structure without fields.

    :param timestamps: whether a field named ``…_at`` holds timestamps.
    :param name: the name of the field.
    """
    known = KNOWN_NUMBERS.get(name)
    match type_:
        case StructOf(fields):
            final = {each: finalize(inner, timestamps, each) for each, inner in fields.items()}
            return StructOf(final) if fields else Kind.JSON
        case Kind.NULL if known is not None:
            return known
        case Kind.NULL if timestamps and name.endswith("_at"):
            return Kind.TIMESTAMP
        case Kind.INT53 if known is Kind.DOUBLE:
            return Kind.DOUBLE
        case ListOf(element):
            return ListOf(finalize(element))
        case Kind.NULL:
            return Kind.STRING
        case Kind.INT53:
            return Kind.INT64
    return type_


def to_plain(type_: Type) -> Any:
    """Return the type as it is in a manifest: an object for objects, a list of one type for lists, else a name."""
    match type_:
        case StructOf(fields):
            return {name: to_plain(inner) for name, inner in fields.items()}
        case ListOf(element):
            return [to_plain(element)]
    return type_.value


def from_plain(plain: Any) -> Type:
    """Return the type that :func:`to_plain` returned. A name that a newer version may use becomes :attr:`Kind.JSON`."""
    match plain:
        case dict():
            return StructOf({name: from_plain(inner) for name, inner in plain.items()})
        case [element]:
            return ListOf(from_plain(element))
        case str() if plain in _NAMES:
            return Kind(plain)
    return Kind.JSON


_NAMES = frozenset(kind.value for kind in Kind)


class TypeInference:
    """Infers the type of the records of a part.

    Nearly every page fits the type of the pages before it. msgspec checks that, with classes that are made from the
    type. Only a page that does not fit is decoded value by value.

    :param timestamps: whether strings can be timestamps, in fields whose name ends in ``_at``.
    """

    def __init__(self, timestamps: bool) -> None:
        self.type: Type = Kind.NULL
        """The narrowest type that holds all records so far."""
        self._timestamps = timestamps
        self._decode = _checker(self.type)

    def add(self, records: Sequence[msgspec.Raw]) -> None:
        """Widen the type, if necessary, so that it holds these records.

        :raises msgspec.DecodeError: a string holds a lone surrogate.
        """
        body = b"[" + b",".join(records) + b"]"
        if self._fits(body):
            return
        found = self._type_of(_decode_any_number(body), "", 0)
        wider = unite(self.type, found.element if isinstance(found, ListOf) else Kind.JSON)
        if wider != self.type:
            self.type = wider
            self._decode = _checker(wider)

    def _fits(self, body: bytes) -> bool:
        if self._decode is None or (self._timestamps and _has_unusual_times(body)):
            return False
        try:
            self._decode(body)
        except (msgspec.ValidationError, _NeedsWiderType):
            return False
        return True

    def _type_of(self, value: Any, name: str, depth: int) -> Type:
        match value:
            case None:
                return Kind.NULL
            case bool():
                return Kind.BOOLEAN
            case int():
                if -_SAFE <= value <= _SAFE:
                    return Kind.INT53
                if -(2**63) <= value < 2**63:
                    return Kind.INT64
                return Kind.INT128 if -_LIMIT_128 <= value < _LIMIT_128 else Kind.JSON
            case float():
                return Kind.DOUBLE
            case str():
                is_timestamp = self._timestamps and name.endswith("_at") and _is_timestamp(value)
                return Kind.TIMESTAMP if is_timestamp else Kind.STRING
        if depth > MAX_DEPTH:
            return Kind.JSON
        if isinstance(value, list):
            return ListOf(unite_all(self._type_of(each, name, depth + 1) for each in value))
        if isinstance(value, dict):
            fields = {key: self._type_of(inner, key, depth + 1) for key, inner in value.items()}
            return StructOf(fields) if len(fields) <= MAX_FIELDS else Kind.JSON
        return Kind.JSON  # a number that does not fit into a double


class _NeedsWiderType(Exception):
    """Raised while a page is decoded: it does not fit the type so far."""


class _LongNumber:
    """A number with more digits than a double holds."""


class _Number:
    """Stands in a checker for :attr:`Kind.DOUBLE`."""


class _Int128:
    """Stands in a checker for :attr:`Kind.INT128`."""


_LONG_NUMBER, _NUMBER, _INT128 = _LongNumber(), _Number(), _Int128()
_SEVEN_DECIMALS = re.compile(rb"\.\d{7}").search
_FINE_TIME = re.compile(rb":\d\d\.\d{7}").search
_FINE_FRACTION = re.compile(r":\d\d\.\d{7}").search
_Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
_CHECKS: dict[Kind, Any] = {
    Kind.NULL: None,
    Kind.BOOLEAN: bool | None,
    Kind.INT53: Annotated[int, msgspec.Meta(ge=-_SAFE, le=_SAFE)] | None,
    Kind.INT64: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None,
    Kind.INT128: _Int128 | None,
    Kind.DOUBLE: _Number | None,
    Kind.TIMESTAMP: _Timestamp | None,
    Kind.STRING: str | None,
    Kind.JSON: msgspec.Raw,
}


def _has_unusual_times(body: bytes) -> bool:
    """Return whether a time may be finer than a microsecond, or on a day that does not exist in UTC."""
    # Three searches are several times faster than one pattern for all: colons are on every line, 7 decimals on few.
    is_fine = _SEVEN_DECIMALS(body) is not None and _FINE_TIME(body) is not None
    return is_fine or b'"0001-01-01' in body or b'"9999-12-31' in body


def _is_timestamp(value: str) -> bool:
    try:
        time = msgspec.convert(value, _Timestamp)
        _ = time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):  # OverflowError: outside of the calendar in UTC
        return False
    return _FINE_FRACTION(value) is None


def _number(numeral: str) -> float | _LongNumber:
    value = float(numeral)
    if len(numeral) <= _SHORT and "e" not in numeral and "E" not in numeral:
        return value
    try:
        return value if Decimal(repr(value)) == Decimal(numeral) else _LONG_NUMBER
    except InvalidOperation:  # an exponent that even Decimal does not accept
        return _LONG_NUMBER


def _number_or_raise(numeral: str) -> float:
    value = _number(numeral)
    if isinstance(value, _LongNumber):
        raise _NeedsWiderType
    return value


def _check(type_: type, value: Any) -> object:
    if type_ is _Int128:
        if type(value) is int and -_LIMIT_128 <= value < _LIMIT_128:
            return _INT128
        raise _NeedsWiderType
    if isinstance(value, float) or (type(value) is int and -_SAFE <= value <= _SAFE):
        return _NUMBER
    raise _NeedsWiderType


_decode_numbers = msgspec.json.Decoder(float_hook=_number).decode


def _decode_any_number(body: bytes) -> Any:
    try:
        return _decode_numbers(body)
    except msgspec.ValidationError:  # an integer of thousands of digits: Python does not convert it
        return json.loads(body, parse_int=_integer, parse_float=_number)


def _integer(numeral: str) -> int | _LongNumber:
    return int(numeral) if len(numeral) <= 40 else _LONG_NUMBER


def _checker(type_: Type) -> Callable[[bytes], Any] | None:
    """Return what decodes a list of such records and fails on others; None if msgspec has no type for them."""
    try:
        return msgspec.json.Decoder(
            list[_class_for(type_)],  # type: ignore[misc]
            dec_hook=_check,
            float_hook=_number_or_raise,
        ).decode
    except ValueError:  # a name that msgspec does not accept, such as one with a quotation mark
        return None


def _class_for(type_: Type) -> Any:
    if isinstance(type_, Kind):
        return _CHECKS[type_]
    if isinstance(type_, ListOf):
        return list[_class_for(type_.element)] | None  # type: ignore[misc]
    names = {f"f{number}": name for number, name in enumerate(type_.fields)}
    fields = [(own, _class_for(type_.fields[name]), None) for own, name in names.items()]
    return msgspec.defstruct("Object", fields, rename=names, forbid_unknown_fields=True, gc=False) | None
