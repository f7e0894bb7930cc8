# SPDX-License-Identifier: Apache-2.0
"""Ids that look random but encode a serial number, so that a million records need no table of ids."""

from __future__ import annotations

import re
from itertools import product

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = ["".join(pair) for pair in product(_LETTERS, repeat=2)]
_PLACE = {pair: place for place, pair in enumerate(_PAIRS)}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_SHORT = 62**10
_LONG = 2**122
_SHORT_FACTOR = 482_391_740_118_263_513  # coprime to 62: odd and no multiple of 31
_LONG_FACTOR = 0x2B7E151628AED2A6ABF7158809CF4F3  # odd
_SHORT_BACK = pow(_SHORT_FACTOR, -1, _SHORT)
_LONG_BACK = pow(_LONG_FACTOR, -1, _LONG)


class Ids:
    """A bijection from serial numbers to ids: every third id is a UUID, the others have ten characters.

    :param salt: another salt gives other ids.
    """

    def __init__(self, salt: int) -> None:
        self._short_salt = (salt * 7_046_029_254_386_353_131 + 0x5DEECE66D) % _SHORT
        self._long_salt = (salt * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 0x243F6A8885A308D313198A2E0) % _LONG

    def of(self, serial: int) -> str:
        """Return the id of a serial number."""
        if serial % 3 == 0:
            x = (serial * _LONG_FACTOR + self._long_salt) % _LONG
            low = x & 0x3FFFFFFFFFFFFFFF
            text = f"{x >> 74:012x}4{x >> 62 & 0xFFF:03x}{low | 0x8000000000000000:016x}"
            return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
        x = (serial * _SHORT_FACTOR + self._short_salt) % _SHORT
        x, a = divmod(x, 3844)
        x, b = divmod(x, 3844)
        x, c = divmod(x, 3844)
        e, d = divmod(x, 3844)
        return _PAIRS[e] + _PAIRS[d] + _PAIRS[c] + _PAIRS[b] + _PAIRS[a]

    def serial(self, text: str) -> int | None:
        """Return the serial number of an id; None if it encodes none. Large numbers mean an id that was not issued."""
        if len(text) == 10:
            try:
                x = 0
                for start in range(0, 10, 2):
                    x = x * 3844 + _PLACE[text[start : start + 2]]
            except KeyError:
                return None
            serial = (x - self._short_salt) * _SHORT_BACK % _SHORT
            return serial if serial % 3 else None
        if _UUID.fullmatch(text):
            digits = text.replace("-", "")
            high, middle, low = int(digits[:12], 16), int(digits[13:16], 16), int(digits[16:], 16)
            x = (high << 74) | (middle << 62) | (low & 0x3FFFFFFFFFFFFFFF)
            serial = (x - self._long_salt) * _LONG_BACK % _LONG
            return None if serial % 3 else serial
        return None
