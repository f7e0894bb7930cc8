# SPDX-License-Identifier: Apache-2.0
"""What the records of a list hold: one type for each field, wide enough for every value that was seen.

Two types unite to the narrowest that loses nothing of either. Where there is none (a string here and an object there,
an integer beyond 128 bits, a number with more digits than a double has) that is :attr:`Kind.TEXT`: the value's JSON
text. So every list has a schema, whatever the bank does to it, and it does not depend on the order of the pages.
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
"""Objects and lists inside each other; what lies deeper is JSON text."""
MAX_FIELDS = 1000
"""An object with more names than this, over all records, is no structure but a map, and becomes JSON text."""

_HUGE = 2**127
_SAFE = 2**53  # up to here a double holds every integer
_SHORT = 16  # a numeral of so many characters, point included and without an exponent, survives in a double


class Kind(Enum):
    """What a field holds that is no object and no list."""

    NULL = "nothing so far"
    BOOL = "bool"
    SMALL = "integers that a double holds as well"
    INTEGER = "integers of 64 bits"
    HUGE = "integers of 128 bits"
    DOUBLE = "numbers that a double holds to the last digit"
    MOMENT = "dates with time and offset, to the microsecond"
    STRING = "string"
    TEXT = "anything, as its JSON text"


@dataclass(frozen=True)
class ListOf:
    """Lists of one type."""

    element: Type


@dataclass(frozen=True)
class StructOf:
    """Objects, by the names that any of them has, in the order in which they appeared."""

    fields: dict[str, Type]


Type = Kind | ListOf | StructOf

_BOTH = {
    frozenset({Kind.SMALL, Kind.INTEGER}): Kind.INTEGER,
    frozenset({Kind.SMALL, Kind.HUGE}): Kind.HUGE,
    frozenset({Kind.INTEGER, Kind.HUGE}): Kind.HUGE,
    frozenset({Kind.SMALL, Kind.DOUBLE}): Kind.DOUBLE,
    frozenset({Kind.MOMENT, Kind.STRING}): Kind.STRING,
}


def unite(one: Type, other: Type) -> Type:
    """The narrowest type that holds what both hold."""
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
        return StructOf(fields) if len(fields) <= MAX_FIELDS else Kind.TEXT
    if isinstance(one, Kind) and isinstance(other, Kind):
        return _BOTH.get(frozenset({one, other}), Kind.TEXT)
    return Kind.TEXT


def unite_all(types: Iterable[Type]) -> Type:
    """The narrowest type that holds what any of them holds."""
    nothing: Type = Kind.NULL
    return reduce(unite, types, nothing)


KNOWN_NUMBERS = {
    "amount": Kind.INTEGER,
    "balance": Kind.INTEGER,
    "exchange_rate": Kind.DOUBLE,
    "exp_month": Kind.INTEGER,
    "exp_year": Kind.INTEGER,
    "payment_amount": Kind.INTEGER,
}
"""What the bank's own fields hold, whether or not there is a value today: results of several days fit together."""


def settle(type_: Type, moments: bool = True, name: str = "") -> Type:
    """The type to store as, when there is nothing more to come.

    What never had a value becomes what the bank documents for a field of that name, else a string, and objects that
    never had a field JSON text: some readers cannot read a column of no type, and no file can hold a structure of no
    fields.

    :param moments: whether a field named ``…_at`` holds moments. :param name: of the field.
    """
    known = KNOWN_NUMBERS.get(name)
    match type_:
        case StructOf(fields):
            settled = {each: settle(inner, moments, each) for each, inner in fields.items()}
            return StructOf(settled) if fields else Kind.TEXT
        case Kind.NULL if known is not None:
            return known
        case Kind.NULL if moments and name.endswith("_at"):
            return Kind.MOMENT
        case Kind.SMALL if known is Kind.DOUBLE:
            return Kind.DOUBLE
        case ListOf(element):
            return ListOf(settle(element))
        case Kind.NULL:
            return Kind.STRING
        case Kind.SMALL:
            return Kind.INTEGER
    return type_


_NAMES = {
    Kind.NULL: "null",
    Kind.BOOL: "boolean",
    Kind.SMALL: "int53",
    Kind.INTEGER: "int64",
    Kind.HUGE: "int128",
    Kind.DOUBLE: "double",
    Kind.MOMENT: "timestamp",
    Kind.STRING: "string",
    Kind.TEXT: "json",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}


def to_plain(type_: Type) -> Any:
    """Return the type as a manifest has it: an object for objects, a list of one for lists, else a name."""
    match type_:
        case StructOf(fields):
            return {name: to_plain(inner) for name, inner in fields.items()}
        case ListOf(element):
            return [to_plain(element)]
    return _NAMES[type_]


def from_plain(plain: Any) -> Type:
    """Return the type that :func:`to_plain` wrote; what a newer version may have written is :attr:`Kind.TEXT`."""
    match plain:
        case dict():
            return StructOf({name: from_plain(inner) for name, inner in plain.items()})
        case [element]:
            return ListOf(from_plain(element))
        case str():
            return _KINDS.get(plain, Kind.TEXT)
    return Kind.TEXT


class Shape:
    """Watches the records of a part go by, and says what they hold.

    Nearly every page holds what those before it held. That it does is checked by msgspec, against classes that are made
    of the type so far; only a page that does not is looked at value by value.

    :param moments: whether strings may be moments: in fields whose name ends in ``_at``.
    """

    def __init__(self, moments: bool) -> None:
        self.type: Type = Kind.NULL
        self._moments = moments
        self._decode = _checker(self.type)

    def see(self, records: Sequence[msgspec.Raw]) -> None:
        """Widen the type, if need be, to what these records hold.

        :raises msgspec.DecodeError: some string holds half a surrogate pair.
        """
        body = b"[" + b",".join(records) + b"]"
        if self._fits(body):
            return
        found = self._type_of(_decode_with_care(body), "", 0)
        wider = unite(self.type, found.element if isinstance(found, ListOf) else Kind.TEXT)
        if wider != self.type:
            self.type = wider
            self._decode = _checker(wider)

    def _fits(self, body: bytes) -> bool:
        if self._decode is None or (self._moments and _has_odd_moments(body)):
            return False
        try:
            self._decode(body)
        except (msgspec.ValidationError, _DoesNotFit):
            return False
        return True

    def _type_of(self, value: Any, name: str, depth: int) -> Type:
        match value:
            case None:
                return Kind.NULL
            case bool():
                return Kind.BOOL
            case int():
                if -_SAFE <= value <= _SAFE:
                    return Kind.SMALL
                if -(2**63) <= value < 2**63:
                    return Kind.INTEGER
                return Kind.HUGE if -_HUGE <= value < _HUGE else Kind.TEXT
            case float():
                return Kind.DOUBLE
            case str():
                return Kind.MOMENT if self._moments and name.endswith("_at") and _is_moment(value) else Kind.STRING
        if depth > MAX_DEPTH:
            return Kind.TEXT
        if isinstance(value, list):
            return ListOf(unite_all(self._type_of(each, name, depth + 1) for each in value))
        if isinstance(value, dict):
            fields = {key: self._type_of(inner, key, depth + 1) for key, inner in value.items()}
            return StructOf(fields) if len(fields) <= MAX_FIELDS else Kind.TEXT
        return Kind.TEXT  # a number that does not fit into a double


class _DoesNotFit(Exception):
    """Raised while a page is decoded: it needs a wider type."""


class _Long:
    """A number with more digits than a double has."""


class _Number:
    """Stands in a checker for :attr:`Kind.DOUBLE`."""


class _HugeInteger:
    """Stands in a checker for :attr:`Kind.HUGE`."""


_LONG, _NUMBER, _HUGE_INTEGER = _Long(), _Number(), _HugeInteger()
_SEVEN_DECIMALS = re.compile(rb"\.\d{7}").search
_FINE_MOMENT = re.compile(rb":\d\d\.\d{7}").search
_FINE_FRACTION = re.compile(r":\d\d\.\d{7}").search
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_CHECKS: dict[Kind, Any] = {
    Kind.NULL: None,
    Kind.BOOL: bool | None,
    Kind.SMALL: Annotated[int, msgspec.Meta(ge=-_SAFE, le=_SAFE)] | None,
    Kind.INTEGER: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None,
    Kind.HUGE: _HugeInteger | None,
    Kind.DOUBLE: _Number | None,
    Kind.MOMENT: _Moment | None,
    Kind.STRING: str | None,
    Kind.TEXT: msgspec.Raw,
}


def _has_odd_moments(body: bytes) -> bool:
    """Whether some moment may be finer than a microsecond, or on a day that UTC may not have."""
    # Three searches are several times faster than one for everything, and colons are on every line.
    is_fine = _SEVEN_DECIMALS(body) is not None and _FINE_MOMENT(body) is not None
    return is_fine or b'"0001-01-01' in body or b'"9999-12-31' in body


def _is_moment(value: str) -> bool:
    try:
        moment = msgspec.convert(value, _Moment)
        _ = moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):  # the latter: outside of the calendar once it is in UTC
        return False
    return _FINE_FRACTION(value) is None


def _number(numeral: str) -> float | _Long:
    value = float(numeral)
    if len(numeral) <= _SHORT and "e" not in numeral and "E" not in numeral:
        return value
    try:
        return value if Decimal(repr(value)) == Decimal(numeral) else _LONG
    except InvalidOperation:  # an exponent that not even Decimal takes
        return _LONG


def _number_or_raise(numeral: str) -> float:
    value = _number(numeral)
    if isinstance(value, _Long):
        raise _DoesNotFit
    return value


def _check(type_: type, value: Any) -> object:
    if type_ is _HugeInteger:
        if type(value) is int and -_HUGE <= value < _HUGE:
            return _HUGE_INTEGER
        raise _DoesNotFit
    if isinstance(value, float) or (type(value) is int and -_SAFE <= value <= _SAFE):
        return _NUMBER
    raise _DoesNotFit


_decode_numbers = msgspec.json.Decoder(float_hook=_number).decode


def _decode_with_care(body: bytes) -> Any:
    try:
        return _decode_numbers(body)
    except msgspec.ValidationError:  # an integer of thousands of digits, which Python does not convert
        return json.loads(body, parse_int=_integer, parse_float=_number)


def _integer(numeral: str) -> int | _Long:
    return int(numeral) if len(numeral) <= 40 else _LONG


def _checker(type_: Type) -> Callable[[bytes], Any] | None:
    """Decodes a list of such records and fails on others; None where msgspec has no type for them."""
    try:
        return msgspec.json.Decoder(
            list[_class_for(type_)],  # type: ignore[misc]
            dec_hook=_check,
            float_hook=_number_or_raise,
        ).decode
    except ValueError:  # a name that msgspec does not take: with a quotation mark, say
        return None


def _class_for(type_: Type) -> Any:
    if isinstance(type_, Kind):
        return _CHECKS[type_]
    if isinstance(type_, ListOf):
        return list[_class_for(type_.element)] | None  # type: ignore[misc]
    names = {f"f{number}": name for number, name in enumerate(type_.fields)}
    fields = [(own, _class_for(type_.fields[name]), None) for own, name in names.items()]
    return msgspec.defstruct("Object", fields, rename=names, forbid_unknown_fields=True, gc=False) | None
