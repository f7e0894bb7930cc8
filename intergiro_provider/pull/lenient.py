# SPDX-License-Identifier: Apache-2.0
"""Reading JSON with half a surrogate pair in a string, which msgspec refuses.

RFC 8259 lets a string hold half of a surrogate pair, such as ``\\ud83d`` alone, and a bank that cuts its texts after so
many UTF-16 units sends such strings. For msgspec each half is replaced by an escape that the page does not hold, and
put back afterwards, so that a record keeps its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape; the group holds it if it is half a pair."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def without_halves(body: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the JSON with a private-use escape in place of each half of a pair, and what puts the halves back."""
    lowered = body.lower()
    free = (escape for n in range(0xE000, 0xF900) if (escape := b"\\u%04x" % n) not in lowered)
    escapes: dict[bytes, bytes] = {}

    def replace(found: re.Match[bytes]) -> bytes:
        if not found[1]:
            return found[0]
        if found[0] not in escapes:
            escape = next(free, None)
            if escape is None:
                raise ValueError("every private-use character is taken")
            escapes[found[0]] = escape
        return escapes[found[0]]

    def restore(text: bytes) -> bytes:
        for half, escape in escapes.items():
            text = text.replace(escape, half)
        return text

    return _ESCAPE.sub(replace, body), restore


def decode(record: bytes) -> Any:
    """Return one record in plain types."""
    return json.loads(record, parse_constant=_no_constant)


def spell_halves(record: bytes) -> bytes:
    """Return the record with each half as the six characters of its escape, for formats that cannot hold it."""
    return _ESCAPE.sub(lambda found: rb"\\" + found[1] if found[1] else found[0], record)


def is_whole(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
