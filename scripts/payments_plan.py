# SPDX-License-Identifier: Apache-2.0
"""The plan of the payments campaign: payments, banks, faults, and the steps at which tasks are killed.

The campaign and its DAG file use this module with the same random seed, so both compute the same payments.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

SEED = 1
DAY = timedelta(hours=24)
SETTLE = timedelta(seconds=10)
"""How long after a request its payment may appear. No fault carries out a payment later."""
SHARD = 250
"""Payments in one DAG run."""

# Parts of every reference, IBAN and name in the campaign, which occur nowhere else.
REFERENCE, BBAN, NAME = "Xq7ref", "5007001077", "Querfurt"

STEPS = (
    "at the start",
    "before the record",
    "after the record",
    "after the response",
    "after the confirmation",
    "at any moment",
)
KILLED = {1: 0.38, 2: 0.15}
"""The share of first and second tries that are killed."""

_LATE = {"commit_after": 6.0}
PAY_FAULTS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("lose_response", 0.08, {}),
    ("lose_response", 0.06, {"commit_after": 2.0}),
    ("lose_response", 0.05, _LATE),
    ("status", 0.06, {"status": 502, "handled": True, "commit_after": 1.0}),
    ("status", 0.05, {"status": 502, "handled": True, **_LATE}),
    ("drop", 0.07, {}),
    ("status", 0.05, {"status": 503}),
)


@dataclass(frozen=True)
class Mode:
    """How a bank treats a repeated key, and how long the tasks trust a key there.

    :param name: the name of the DAG and of its connection.
    :param title: the name of the bank in the report.
    :param settings: settings of the sandbox.
    :param trusted_for: `key_trusted_for` of the tasks.
    """

    name: str
    title: str
    settings: dict[str, Any]
    trusted_for: timedelta = DAY


MODES = (
    Mode("keeps", "keeps keys", {}),
    Mode("forgets", "forgets keys after 30 s", {"idempotency_life": 30.0}, timedelta(seconds=30)),
    Mode("ignores", "ignores keys", {"idempotency": "ignore"}, timedelta(0)),
    Mode("conflicts", "returns 409 for a repeated key", {"idempotency": "conflict"}),
    Mode("replays", "replays the first payment for any body", {"idempotency": "replay"}),
)


@dataclass(frozen=True)
class Bulk:
    """A bulk payment, and how its bank treats it.

    :param name: the name of the DAG and of its connection.
    :param title: the name of the bank in the report.
    :param visible_after: seconds until the bank's list shows the items.
    :param resend_after: `resend_after` of the task.
    :param faults: faults of the bank: kind, probability, and options.
    :param kills: by try number, the step at which the try is killed, and at which occurrence of the step.
    :param clears: the largest number of clears after OutcomeUnknown.
    """

    name: str
    title: str
    visible_after: float
    resend_after: timedelta | None
    faults: tuple[tuple[str, float, dict[str, Any]], ...]
    kills: dict[int, tuple[str, int]]
    clears: int = 12


BULKS = (
    Bulk(
        "bulk_soon", "items visible within `settle`, sent again after 20 s", 4.0, timedelta(seconds=20),
        (
            ("lose_response", 0.2, {}), ("lose_response", 0.1, {"commit_after": 3.0}), ("drop", 0.1, {}),
            ("status", 0.15, {"status": 502, "handled": True, "commit_after": 2.0}),
        ),
        {1: ("after the response", 2), 2: ("after the record", 2), 3: ("before the record", 2),
         4: ("after the confirmation", 2)},
    ),
    Bulk(
        "bulk_late", "items visible only after `settle`, never sent again", 40.0, None,
        (("lose_response", 0.25, {}), ("status", 0.15, {"status": 502, "handled": True, "commit_after": 2.0})),
        {1: ("after the response", 2), 2: ("before the record", 1), 4: ("after the response", 1),
         5: ("after the confirmation", 1)},
    ),
    Bulk(
        "bulk_lost", "one request never arrives, never sent again", 4.0, None,
        (("drop", 1.0, {"times": 1, "skip": 4}), ("lose_response", 0.2, {})),
        {1: ("after the confirmation", 1)}, clears=2,
    ),
)  # fmt: skip


def step_of(place: str, try_number: int) -> str | None:
    """Return the step at which this try of a payment is killed; None: it is not killed."""
    draw = random.Random(f"{SEED} {place} {try_number}")  # noqa: S311
    return draw.choice(STEPS) if draw.random() < KILLED.get(try_number, 0.0) else None


def reference(group: str, key: object) -> str:
    """Return the reference of a payment, which is unique."""
    return f"{REFERENCE} {group} {key}"


def payee(key: object) -> dict[str, str]:
    """Return the payee of a payment."""
    number = _number(key)
    bban = f"{BBAN}{number:08d}"
    check = 98 - int(f"{bban}131400") % 97  # D is 13, E is 14
    return {"name": f"Zoë {NAME} {number}", "iban": f"DE{check:02d}{bban}", "bic": "DEUTDEFF"}


def amount(key: object) -> int:
    """Return the amount of a payment, in cents. Many payments have the same amount."""
    return 100 + _number(key) % 3


def items(bulk: Bulk, count: int) -> list[dict[str, Any]]:
    """Return the items of a bulk payment."""
    return [
        {"counterparty": payee(number), "amount": amount(number), "reference": reference(bulk.name, number)}
        for number in range(count)
    ]


def _number(key: object) -> int:
    return int(str(key).rpartition("-")[2])
