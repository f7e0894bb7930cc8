# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: which there are, and when one strikes. What a fault does on the wire is in `misbehave.py`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_HANDLED = {"handled": False, "commit_after": 0.0}

KINDS: dict[str, dict[str, Any]] = {
    # kind: its parameters with their defaults
    "latency": {"seconds": 0.5},
    "status": {"status": 503, "body": "json", "retry_after": None, **_HANDLED},
    "rate_limit": {"retry_after": 1.0, "as_date": False, **_HANDLED},
    "answer": {"status": 200, "body": "", "headers": {}, **_HANDLED},
    "redirect": {"to": "", "status": 307},
    "drop": {"reset": False, **_HANDLED},
    "lose_answer": {"reset": False, "commit_after": 0.0},
    "drop_body": {"fraction": 0.5, "reset": False},
    "hang": {"seconds": 3600.0, **_HANDLED},
    "garbled": {"how": "cut"},
    "empty_page": {},
    "stuck_page": {},
    "repeat_record": {},
    "consent": {"scope": "make_payment"},
}
"""Every kind of fault.

latency: waits `seconds` before anything else.
status: answers `status` with a JSON, HTML, text or empty `body`, Retry-After if given (seconds, or any text).
rate_limit: 429 with Retry-After in seconds or as an HTTP date; `retry_after: null` sends none.
answer: answers exactly this; a body that is not a string is sent as JSON.
redirect: answers `status` with Location `to`.
drop: closes the connection without an answer; `reset` sends RST instead of FIN.
lose_answer: executes the request, then drops: after a refresh, the pair is rotated and nobody has it.
drop_body: announces the whole body, sends that fraction of it, closes.
hang: sends nothing for so long, then closes.
garbled: a 200 whose body is `cut` short (with a matching length), `noise`, `html`, `empty`, `not_utf8` or `scalar`.
empty_page: `has_more` is true and `data` empty. stuck_page: the cursor is ignored, so the first page comes again.
repeat_record: the page's last record comes twice.
consent: 412 with a pending consent.
With `handled`, the request is executed although the fault hides its answer: at once, or `commit_after` seconds later.
"""

AFTER = frozenset({"empty_page", "stuck_page", "repeat_record", "garbled", "drop_body"})
"""Kinds that spoil an answer that would have been good; a 401 or 400 goes out as it is and uses nothing up."""

GUARD = frozenset({"consent"})
"""Kinds that strike once the request may pass, and before it is executed."""

_CHOICES = {
    ("status", "body"): ("json", "html", "text", "empty"),
    ("garbled", "how"): ("cut", "noise", "html", "empty", "not_utf8", "scalar"),
}


class FaultError(ValueError):
    """A fault that does not exist, or with parameters it does not have."""


_LEAST = {("status", "status"): 200, ("answer", "status"): 200, ("redirect", "status"): 300}


def _number(kind: str, name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FaultError(f"{kind}: {name} {value!r} is not a number")
    if value < (least := _LEAST.get((kind, name), 0)):
        raise FaultError(f"{kind}: {name} {value!r} is below {least}")


@dataclass
class Fault:
    """One fault on demand.

    :param path: prefix of the paths it strikes; a trailing `$` makes it the whole path.
    :param method: only this method; empty means any.
    :param times: how often it strikes; None: until cleared.
    :param skip: how many matching requests it lets through first.
    :param probability: with which it strikes a matching request, drawn from `seed`.
    """

    kind: str
    path: str = "/v"
    method: str = ""
    times: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    id: int = 0
    struck: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FaultError(f"kind: no fault {self.kind!r}; there are {', '.join(KINDS)}")
        known = KINDS[self.kind]
        if unknown := set(self.params) - set(known):
            allowed = ", ".join(known) or "none"
            raise FaultError(f"{self.kind}: no parameter {', '.join(sorted(unknown))}; there are: {allowed}")
        self.params = {**known, **self.params}
        for name, value in self.params.items():
            choices = _CHOICES.get((self.kind, name))
            if choices and value not in choices:
                raise FaultError(f"{self.kind}: {name} {value!r} is not one of {', '.join(choices)}")
            default = known[name]
            if isinstance(default, int | float) and not isinstance(default, bool) and value is not None:
                _number(self.kind, name, value)
        if self.kind == "redirect" and not self.params["to"]:
            raise FaultError("redirect: `to` is missing")
        if not isinstance(self.probability, int | float) or not 0 <= self.probability <= 1:
            raise FaultError(f"probability: {self.probability!r} is not between 0 and 1")
        if self.times is not None and (not isinstance(self.times, int) or self.times < 1):
            raise FaultError(f"times: {self.times!r} is not an integer from 1 up, or null")
        self._draw = random.Random(self.seed)

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is one of those this fault is meant for."""
        if self.method and self.method != method:
            return False
        return path == self.path[:-1] if self.path.endswith("$") else path.startswith(self.path)

    def strikes(self) -> bool:
        """Whether it strikes the matching request at hand."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times == 0 or (self.probability < 1 and self._draw.random() >= self.probability):
            return False
        if self.times is not None:
            self.times -= 1
        self.struck += 1
        return True

    def describe(self) -> dict[str, Any]:
        """As JSON carries it."""
        names = ("id", "kind", "path", "method", "times", "skip", "probability", "seed", "struck", "params")
        return {name: getattr(self, name) for name in names}


class Faults:
    """The faults that are set. At most one strikes a request, `latency` aside: the one set first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, described: Mapping[str, Any]) -> Fault:
        """Set a fault from `kind`, `path`, `method`, `times`, `skip`, `probability`, `seed`; the rest is the kind's.

        :raises FaultError: it cannot be.
        """
        common = {"kind", "path", "method", "times", "skip", "probability", "seed"}
        given = {name: value for name, value in described.items() if name in common}
        params = {name: value for name, value in described.items() if name not in common}
        if "kind" not in given:
            raise FaultError("kind: is missing")
        fault = Fault(**given, params=params, id=next(self._ids))
        self._faults.append(fault)
        return fault

    def clear(self, id: int | None = None) -> int:
        """Take back one fault, or all. Returns how many there were."""
        before = len(self._faults)
        self._faults = [] if id is None else [fault for fault in self._faults if fault.id != id]
        return before - len(self._faults)

    def describe(self) -> list[dict[str, Any]]:
        """All faults set, used up ones included."""
        return [fault.describe() for fault in self._faults]

    def latency(self, method: str, path: str) -> float:
        """Seconds to wait before this request is looked at."""
        return sum(
            float(fault.params["seconds"])
            for fault in self._faults
            if fault.kind == "latency" and fault.matches(method, path) and fault.strikes()
        )

    def before(self, method: str, path: str) -> Fault | None:
        """The fault that strikes this request whatever its answer would be."""
        return self._first(method, path, lambda kind: kind not in AFTER and kind not in GUARD)

    def guard(self, method: str, path: str) -> Fault | None:
        """The fault that keeps an authorised request from being executed."""
        return self._first(method, path, GUARD.__contains__)

    def after(self, method: str, path: str) -> Fault | None:
        """The fault that spoils this request's good answer."""
        return self._first(method, path, AFTER.__contains__)

    def _first(self, method: str, path: str, phase: Callable[[str], bool]) -> Fault | None:
        for fault in self._faults:
            if fault.kind != "latency" and phase(fault.kind) and fault.matches(method, path) and fault.strikes():
                return fault
        return None
