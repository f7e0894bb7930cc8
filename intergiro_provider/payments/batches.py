# SPDX-License-Identifier: Apache-2.0
"""What a bulk payment pays: items, checked, and split into batches in a way that does not depend on their order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import check_currency, minor_units
from intergiro_provider.payments.keys import correlation_id
from intergiro_provider.payments.payees import read_payee, text
from intergiro_provider.payments.plan import digest_of, plan_of

BATCH = 1000
"""Items in one request at most."""
MOST_BATCHES = 100
"""Batches that may wait for a person's approval at once."""
CURRENCY = "EUR"
FIELDS = frozenset({"counterparty", "amount", "currency", "reference", "correlation_id"})


@dataclass(frozen=True, slots=True)
class Item:
    """One payment of a batch.

    :param content: as the bank wants it; with `correlation_id` if the user gave one.
    :param masked: the payee, as a record may show it.
    """

    content: dict[str, Any] = field(repr=False)
    masked: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of one request, each with its `correlation_id`."""

    items: list[Item]

    @property
    def amounts(self) -> dict[str, int]:
        """The amount of each correlation id, in cents."""
        return {item.content["correlation_id"]: item.content["amount"] for item in self.items}

    @property
    def total(self) -> int:
        """The sum of its items, in cents."""
        return sum(item.content["amount"] for item in self.items)

    def body(self, account_id: str) -> dict[str, Any]:
        """Return the request."""
        return {"account_id": account_id, "items": [item.content for item in self.items]}


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """A bulk payment: its account and its items, in an order that depends on their content alone."""

    account_id: str = field(repr=False)
    items: list[Item]

    @property
    def digest(self) -> str:
        """SHA-256 of what is paid, whatever the order in which the items came."""
        return digest_of(["bulk_payments", self.account_id, [item.content for item in self.items]])

    def summary(self) -> dict[str, Any]:
        """Return count, totals and digest."""
        total = sum(item.content["amount"] for item in self.items)
        return plan_of(len(self.items), {CURRENCY: total}, self.digest)

    def batches(self, key: str) -> list[Batch]:
        """Split the items.

        :param key: of the bulk payment; correlation ids are made from it.
        """
        seen: Counter[str] = Counter()
        named = []
        for item in self.items:
            if "correlation_id" not in item.content:
                content = _canonical(item.content)
                own = correlation_id(key, item.content, seen[content])
                seen[content] += 1
                item = Item({**item.content, "correlation_id": own}, item.masked)
            named.append(item)
        return [Batch(named[start : start + BATCH]) for start in range(0, len(named), BATCH)]


def read_plan(account_id: Any, given: Iterable[Any]) -> BulkPlan:
    """Check the items of a bulk payment.

    :param given: dicts of `counterparty`, `amount`, `reference`, and if wanted `currency` and `correlation_id`.
    :raises IntergiroValueError: names the item and the field that is wrong; nothing was sent.
    """
    if isinstance(given, (str, bytes, Mapping)):
        raise IntergiroValueError(f"`items` is a {type(given).__name__}; it must be a list of dicts. Nothing was sent.")
    given = list(given)
    if not given:
        raise IntergiroValueError("`items` is empty: there is nothing to pay. Skip the task instead. Nothing was sent.")
    if len(given) > BATCH * MOST_BATCHES:
        raise IntergiroValueError(
            f"`items` holds {len(given)} items. At most {MOST_BATCHES} batches of {BATCH} can wait for approval at "
            "once. Nothing was sent. Split the items over several runs."
        )
    items = [_read_item(item, f"item {number}") for number, item in enumerate(given, 1)]
    ids = Counter(item.content["correlation_id"] for item in items if "correlation_id" in item.content)
    if repeated := [number for number, count in ids.items() if count > 1]:
        raise IntergiroValueError(
            f"`items`: {len(repeated)} correlation ids are given to more than one item. Nothing was sent. Give each "
            "item its own, or none."
        )
    items.sort(key=lambda item: _canonical(item.content))
    return BulkPlan(text(account_id, "`account_id`"), items)


def read_lines(lines: Iterable[bytes | str]) -> Iterator[Any]:
    """Decode JSON lines; empty ones are skipped.

    :raises IntergiroValueError: names the line that is not JSON.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError:
            raise IntergiroValueError(f"`items`: line {number} is not JSON. Nothing was sent.") from None


def _read_item(given: Any, where: str) -> Item:
    if not isinstance(given, Mapping):
        raise IntergiroValueError(f"`items`: {where} is a {type(given).__name__}, not a dict. Nothing was sent.")
    fields = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(str(name) for name in fields.keys() - FIELDS):
        raise IntergiroValueError(
            f"`items`: {where} has the unknown field {unknown[0]!r}; there are {', '.join(sorted(FIELDS))}. Nothing "
            "was sent."
        )
    currency = check_currency(fields.get("currency"), f"{where}: currency")
    if currency not in (None, CURRENCY):
        raise IntergiroValueError(
            f"`items`: {where} is in {currency}; a bulk payment is in EUR only. Nothing was sent."
        )
    payee = read_payee(fields.get("counterparty"), f"{where}: counterparty")
    if payee.iban is None:
        raise IntergiroValueError(
            f"`items`: {where} needs an IBAN and a BIC: a bulk payment is SEPA. Nothing was sent."
        )
    content = {
        "counterparty": payee.for_bulk(),
        "amount": minor_units(fields.get("amount"), currency, f"{where}: amount"),
        "reference": text(fields.get("reference"), f"{where}: reference"),
    }
    if "correlation_id" in fields:
        content["correlation_id"] = text(fields["correlation_id"], f"{where}: correlation_id")
    return Item(content, payee.masked())


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False)
