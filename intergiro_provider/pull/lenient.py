# SPDX-License-Identifier: Apache-2.0
"""Taking a page apart that msgspec does not read, although it is JSON: slower, and to the same bytes.

RFC 8259 lets a string hold half of a surrogate pair, such as ``\\ud83d`` alone, and a bank that cuts its texts after so
many UTF-16 units sends such strings. msgspec refuses them; the standard library does not.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def split(body: bytes) -> tuple[list[msgspec.Raw], bool | None]:
    """The records of a page, and its ``has_more``; None where it has none, as in a plain array.

    :raises ValueError: it is not JSON.
    :raises msgspec.ValidationError: it is JSON, but neither an array nor ``{data: [...], …}``.
    """
    text = body.decode()
    start = _skip(text, 0)
    if text[start : start + 1] == "[":
        records, end = _elements(text, start)
        has_more: Any = None
    else:
        records, has_more, end = _envelope(text, start)
    if _skip(text, end) != len(text):
        raise ValueError("something follows the JSON")
    return [msgspec.Raw(record.encode()) for record in records], has_more


def decode(record: bytes) -> Any:
    """One record in plain types."""
    return json.loads(record, parse_constant=_no_constant)


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def spell_halves(record: bytes) -> bytes:
    """The record with each half of a surrogate pair as the six characters of its escape, for who cannot hold it."""
    return _ESCAPE.sub(lambda found: rb"\\" + found[1] if found[1] else found[0], record)


def _envelope(text: str, start: int) -> tuple[list[str], bool, int]:
    whole, end = _decode(text, start)
    if not isinstance(whole, dict) or not isinstance(whole.get("has_more"), bool):
        raise msgspec.ValidationError("no page")
    records: list[str] | None = None
    # Once more from the inside: only this tells where each record begins and ends.
    place = _skip(text, start + 1)
    while text[place] != "}":
        name, place = _decode(text, place)
        place = _skip(text, _skip(text, place) + 1)
        if name == "data" and text[place] == "[":
            records, place = _elements(text, place)
        else:
            _, place = _decode(text, place)
        place = _skip(text, place)
        if text[place] == ",":
            place = _skip(text, place + 1)
    if records is None or not isinstance(whole["data"], list):
        raise msgspec.ValidationError("no page")
    return records, whole["has_more"], end


def _elements(text: str, start: int) -> tuple[list[str], int]:
    found: list[str] = []
    place = _skip(text, start + 1)
    if text[place : place + 1] == "]":
        return found, place + 1
    while True:
        begin = place
        _, place = _decode(text, begin)
        found.append(text[begin:place])
        place = _skip(text, place)
        follows = text[place : place + 1]
        if follows == "]":
            return found, place + 1
        if follows != ",":
            raise ValueError("an array without its end")
        place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space else place
