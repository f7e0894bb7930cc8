# SPDX-License-Identifier: Apache-2.0
"""Mask account data in the bank's error messages, so that a log may show them.

A word is shown only if it cannot be account data: a plain lower-case word, a short number, a name such as
``account_id``, or a capitalized word of `ORDINARY`. Quoted text is masked, and so is each word that the request
contained as a value. `MASK` replaces masked words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests

MASK = "…"
LONGEST = 200
"""The largest number of characters of a message."""

_ORDINARY = """
    A Access Account Accounts Amount An API At Bank BIC Body Cannot Code Consent Could Counterparty Currency Date Does
    Each EUR Expected Field For From IBAN ID Insufficient Internal Invalid Is Item Items JSON Key Limit Maximum Method
    Minimum Missing Must No Not Only Parameter Payment Permission Please Query Reference Request Required Resource SCA
    Segment SEPA Service Session The There This To Too Transaction Unknown Unsupported USD UTC UUID Value Version You
    Your
"""
_FUNCTION_WORDS = """
    a an and are as at be but by can do for has have in is it may must no not of on one or so than that the then there
    this to was will with
"""
ORDINARY = frozenset(_ORDINARY.split())
"""Capitalized words and abbreviations that are shown."""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that are shown although the request contains them."""

_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|`[^`]*`|(?<!\w)'[^']*'(?!\w)|‘[^’]*’")
_EDGES = "()[]{}<>.,:;!?\"'`“”‘’«»"
_PLAIN = re.compile(r"[a-z]+(?:['’-][a-z]+)*|[0-9]{1,3}|[a-z]+(?:[._][a-z]+)+(?:\[\])?")


def errors_in(body: Any) -> list[dict[str, Any]]:
    """Return the errors of a response's body: those of its list ``errors``, or the body as one error."""
    if not isinstance(body, dict):
        return []
    errors = body.get("errors")
    if isinstance(errors, list):
        return [error for error in errors if isinstance(error, dict)]
    inner = body.get("error")
    for error in (body, inner):
        if isinstance(error, dict) and any(isinstance(error.get(name), str) for name in ("code", "message")):
            return [error]
    return []


def shown(errors: Iterable[Mapping[str, Any]], request: requests.PreparedRequest | None = None) -> str:
    """Return field, code and message of each error, without account data.

    :param request: what was sent, whose values are not shown.
    """
    sent = _words_sent(request) if request is not None else frozenset()
    return "; ".join(filter(None, (_one(error, sent) for error in errors)))[: 3 * LONGEST]


def _one(error: Mapping[str, Any], sent: frozenset[str]) -> str:
    parts = []
    for name in ("field", "code"):
        value = error.get(name)
        if isinstance(value, str) and value:
            fits = re.fullmatch(r"[A-Za-z][A-Za-z_.\-\[\]0-9]{0,79}", value) and sum(c.isdigit() for c in value) < 5
            parts.append(f"{name} {value if fits else MASK}")
    message = error.get("message")
    if isinstance(message, str) and (text := masked(message, sent)).strip(f"{MASK} "):
        parts.append(text if not parts else f"“{text}”")
    return ", ".join(parts)


def masked(message: str, sent: frozenset[str] = frozenset()) -> str:
    """Return a message with everything masked that could be account data.

    :param sent: lower-case words that are not shown.
    """
    words = [_masked_word(word, sent) for word in _QUOTED.sub(f" {MASK} ", message[: 10 * LONGEST]).split()]
    kept: list[str] = []
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        # A number next to another one may be part of an account number; before a currency it is an amount.
        if word.strip(_EDGES).isdigit() and (_is_data(before) or _is_data(after)):
            word = MASK
        if word != MASK or kept[-1:] != [MASK]:
            kept.append(word)
    text = " ".join(kept)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}{MASK}"


def _masked_word(word: str, sent: frozenset[str]) -> str:
    core = word.strip(_EDGES)
    if core in FUNCTION_WORDS or not core:
        return word
    return word if (_PLAIN.fullmatch(core) or core in ORDINARY) and core.lower() not in sent else MASK


def _is_data(word: str) -> bool:
    core = word.strip(_EDGES)
    return word == MASK or core.isdigit() or (core.isupper() and len(core) == 3)


def _words_sent(request: requests.PreparedRequest) -> frozenset[str]:
    values = [value for _, value in parse_qsl(urlsplit(request.url or "").query)]
    body = request.body
    try:
        values += _strings(json.loads(body)) if body else ()
    except (ValueError, TypeError, RecursionError):
        values.append(body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body))
    return frozenset(core for value in values for word in value.split() if (core := word.strip(_EDGES).lower()))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield str(value)
