# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: their kinds, and the requests to which they apply. `fault_effects.py` carries them out."""

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
    "response": {"status": 200, "body": "", "headers": {}, **_HANDLED},
    "redirect": {"to": "", "status": 307},
    "drop": {"reset": False, **_HANDLED},
    "lose_response": {"reset": False, "commit_after": 0.0},
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
status: responds with `status`, a JSON, HTML, text or empty `body`, and Retry-After if given (seconds, or any text).
rate_limit: 429 with Retry-After in seconds or as an HTTP date; `retry_after: null` sends none.
response: responds with exactly this; a body that is not a string is sent as JSON.
redirect: responds with `status` and Location `to`.
drop: closes the connection without a response; `reset` sends RST instead of FIN.
lose_response: executes the request, then drops: after a refresh, the new pair is lost.
drop_body: announces the whole body, sends that fraction of it, closes.
hang: sends nothing for `seconds`, then closes.
garbled: a 200 whose body is `cut` short (with a matching length), `noise`, `html`, `empty`, `not_utf8` or `scalar`.
empty_page: `has_more` is true and `data` empty. stuck_page: the cursor is ignored, so the first page comes again.
repeat_record: the page's last record is repeated.
consent: 412 with a pending consent.
With `handled`, the request is executed although the fault hides its response: at once, or `commit_after` seconds later.
"""

AFTER = frozenset({"empty_page", "stuck_page", "repeat_record", "garbled", "drop_body"})
"""Kinds that change a successful response. A 401 or 400 stays unchanged and does not use up the fault."""

GUARD = frozenset({"consent"})
"""Kinds that apply to an authorized request before it is executed."""

_CHOICES = {
    ("status", "body"): ("json", "html", "text", "empty"),
    ("garbled", "how"): ("cut", "noise", "html", "empty", "not_utf8", "scalar"),
}


class FaultError(ValueError):
    """The fault or one of its parameters does not exist or is not valid."""


_LEAST = {("status", "status"): 200, ("response", "status"): 200, ("redirect", "status"): 300}


def _number(kind: str, name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FaultError(f"{kind}: {name} {value!r} is not a number")
    if value < (least := _LEAST.get((kind, name), 0)):
        raise FaultError(f"{kind}: {name} {value!r} is below {least}")


@dataclass
class Fault:
    """One fault on demand.

    :param path: prefix of the paths to which it applies; with `$` at the end, only that path.
    :param method: only this method; empty means any.
    :param times: how many times it applies; None: until cleared.
    :param skip: number of matching requests that it skips first.
    :param probability: that it applies to a matching request, drawn with `seed`.
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
        """Return whether the fault matches a request."""
        if self.method and self.method != method:
            return False
        return path == self.path[:-1] if self.path.endswith("$") else path.startswith(self.path)

    def strikes(self) -> bool:
        """Return whether the fault applies to this matching request, and count it."""
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
        """Return the fault as JSON values."""
        names = ("id", "kind", "path", "method", "times", "skip", "probability", "seed", "struck", "params")
        return {name: getattr(self, name) for name in names}


class Faults:
    """The faults that are set. Apart from `latency`, only the fault that was set first applies to a request."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, described: Mapping[str, Any]) -> Fault:
        """Set a fault from `kind`, `path`, `method`, `times`, `skip`, `probability`, `seed` and the kind's parameters.

        :raises FaultError: the fault or a parameter does not exist.
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
        """Remove one fault, or all; return their number."""
        before = len(self._faults)
        self._faults = [] if id is None else [fault for fault in self._faults if fault.id != id]
        return before - len(self._faults)

    def describe(self) -> list[dict[str, Any]]:
        """Return all faults that are set, including used-up ones."""
        return [fault.describe() for fault in self._faults]

    def latency(self, method: str, path: str) -> float:
        """Return the seconds to wait before this request is processed."""
        return sum(
            float(fault.params["seconds"])
            for fault in self._faults
            if fault.kind == "latency" and fault.matches(method, path) and fault.strikes()
        )

    def before(self, method: str, path: str) -> Fault | None:
        """Return the fault that applies to this request whatever its response would be; None if there is none."""
        return self._first(method, path, lambda kind: kind not in AFTER and kind not in GUARD)

    def guard(self, method: str, path: str) -> Fault | None:
        """Return the fault that stops an authorized request before it is executed; None if there is none."""
        return self._first(method, path, GUARD.__contains__)

    def after(self, method: str, path: str) -> Fault | None:
        """Return the fault that changes the successful response to this request; None if there is none."""
        return self._first(method, path, AFTER.__contains__)

    def _first(self, method: str, path: str, phase: Callable[[str], bool]) -> Fault | None:
        for fault in self._faults:
            if fault.kind != "latency" and phase(fault.kind) and fault.matches(method, path) and fault.strikes():
                return fault
        return None
