# SPDX-License-Identifier: Apache-2.0
"""Read JSON with a lone surrogate in a string, which msgspec refuses.

RFC 8259 allows a string to hold half of a surrogate pair, such as ``\\ud83d`` alone. A bank sends such strings if it
cuts a text after a number of UTF-16 units. Before msgspec reads a page, each lone surrogate is replaced by an escape
that the page does not hold. Afterwards it is put back, so that a record keeps its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape. The group holds it if it is a lone surrogate."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def replaced(body: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return JSON with a private-use escape in place of each lone surrogate, and a function that puts them back."""
    lowered = body.lower()
    free = (escape for n in range(0xE000, 0xF900) if (escape := b"\\u%04x" % n) not in lowered)
    escapes: dict[bytes, bytes] = {}

    def replace(found: re.Match[bytes]) -> bytes:
        if not found[1]:
            return found[0]
        if found[0] not in escapes:
            escape = next(free, None)
            if escape is None:
                raise ValueError("the page holds every private-use character")
            escapes[found[0]] = escape
        return escapes[found[0]]

    def restore(text: bytes) -> bytes:
        for surrogate, escape in escapes.items():
            text = text.replace(escape, surrogate)
        return text

    return _ESCAPE.sub(replace, body), restore


def decode(record: bytes) -> Any:
    """Return one record in plain types."""
    return json.loads(record, parse_constant=_no_constant)


def spell_out(record: bytes) -> bytes:
    """Return a record with the six characters of its escape in place of each lone surrogate."""
    return _ESCAPE.sub(lambda found: rb"\\" + found[1] if found[1] else found[0], record)


def can_be_encoded(text: str) -> bool:
    """Return whether a text holds no lone surrogate, so that UTF-8 can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
