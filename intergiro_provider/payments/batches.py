# SPDX-License-Identifier: Apache-2.0
"""The items of a bulk payment: checked, and split into batches. The split does not depend on the order of the items."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import check_currency, minor_units
from intergiro_provider.payments.keys import NO_VALUE, correlation_id
from intergiro_provider.payments.payees import check_text, read_payee, shown_field, type_of
from intergiro_provider.payments.plan import digest_of, plan_summary

BATCH_SIZE = 1000
"""The most items in one request."""
MAX_BATCHES = 100
"""The most batches that can wait for a person's approval at once."""
CURRENCY = "EUR"
FIELDS = frozenset({"counterparty", "amount", "currency", "reference", "correlation_id"})


@dataclass(frozen=True, slots=True)
class Item:
    """One payment of a batch.

    :param content: the item as the API takes it; with `correlation_id` if the user gave one.
    :param masked: the payee for a record.
    """

    content: dict[str, Any] = field(repr=False)
    masked: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of one request, each with its `correlation_id`."""

    items: list[Item]

    @property
    def amounts(self) -> dict[str, int]:
        """The amounts in cents, by correlation id."""
        return {item.content["correlation_id"]: item.content["amount"] for item in self.items}

    @property
    def total(self) -> int:
        """The sum of the items, in cents."""
        return sum(item.content["amount"] for item in self.items)

    def body(self, account_id: str) -> dict[str, Any]:
        """Return the body of the request."""
        return {"account_id": account_id, "items": [item.content for item in self.items]}


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """A bulk payment: the account that pays, and the items, sorted by their content."""

    account_id: str = field(repr=False)
    items: list[Item]

    @property
    def digest(self) -> str:
        """SHA-256 of the account and the items. It does not depend on the order in which the items were given."""
        return digest_of(["bulk_payments", self.account_id, [item.content for item in self.items]])

    def summary(self) -> dict[str, Any]:
        """Return the number of items, the totals and the digest."""
        total = sum(item.content["amount"] for item in self.items)
        return plan_summary(len(self.items), {CURRENCY: total}, self.digest)

    def batches(self, key: str) -> list[Batch]:
        """Return the items in batches, each item with a correlation id.

        :param key: the key of the bulk payment. Correlation ids are made from it, unless the user gave them.
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
        return [Batch(named[start : start + BATCH_SIZE]) for start in range(0, len(named), BATCH_SIZE)]


def read_plan(account_id: Any, given: Iterable[Any]) -> BulkPlan:
    """Check the items of a bulk payment, and return its plan.

    :param given: dicts with `counterparty`, `amount` and `reference`; `currency` and `correlation_id` are optional.
    :raises IntergiroValueError: names the item and the field that is wrong.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise IntergiroValueError(f"`items` is {type_of(given)}. Give a list of dicts. Nothing was sent.")
    given = list(given)
    if not given:
        raise IntergiroValueError("`items` is empty: there is nothing to pay. Skip the task instead. Nothing was sent.")
    if len(given) > BATCH_SIZE * MAX_BATCHES:
        raise IntergiroValueError(
            f"`items` holds {len(given)} items. At most {MAX_BATCHES} batches of {BATCH_SIZE} can wait for approval at "
            "once. Nothing was sent. Split the items over several runs."
        )
    items = [_read_item(item, f"`items`: item {number}") for number, item in enumerate(given, 1)]
    ids = Counter(item.content["correlation_id"] for item in items if "correlation_id" in item.content)
    if repeated := [number for number, count in ids.items() if count > 1]:
        raise IntergiroValueError(
            f"`items`: more than one item has the same correlation_id (repeated ids: {len(repeated)}). Nothing was "
            "sent. Give each item its own, or none."
        )
    items.sort(key=lambda item: _canonical(item.content))
    return BulkPlan(check_text(account_id, "`account_id`"), items)


def read_lines(lines: Iterable[bytes | str]) -> Iterator[Any]:
    """Yield the values of JSON lines, without empty lines.

    :raises IntergiroValueError: names the line that is not JSON, or has a field twice.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line, object_pairs_hook=partial(_once, number))
        except IntergiroValueError:
            raise
        except (ValueError, RecursionError):
            raise IntergiroValueError(
                f"`items`: line {number} is not JSON. Nothing was sent. Write each item as JSON on one line."
            ) from None


def _once(line: int, fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Of a field that is there twice, JSON decoders drop one."""
    found = dict(fields)
    if len(found) < len(fields):
        raise IntergiroValueError(
            f"`items`: line {line} has a field twice. Nothing was sent. Write each field of an item once."
        )
    return found


def _read_item(given: Any, where: str) -> Item:
    if not isinstance(given, Mapping):
        raise IntergiroValueError(f"{where} is {type_of(given)}. Give a dict. Nothing was sent.")
    fields = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(str(name) for name in fields.keys() - FIELDS):
        raise IntergiroValueError(
            f"{where} has the unknown field {shown_field(unknown[0], FIELDS)}. It accepts "
            f"{', '.join(sorted(FIELDS))}. Nothing was sent."
        )
    currency = check_currency(fields.get("currency"), f"{where}: currency")
    if currency not in (None, CURRENCY):
        raise IntergiroValueError(
            f"{where} is in {currency}, but a bulk payment is possible in EUR only. Nothing was sent. Pay it with "
            "IntergiroPaymentOperator."
        )
    payee = read_payee(fields.get("counterparty"), f"{where}: counterparty")
    if payee.iban is None:
        raise IntergiroValueError(
            f"{where} has no IBAN and BIC, which a SEPA payment needs. Nothing was sent. Pay an Intergiro account with "
            "IntergiroPaymentOperator."
        )
    content = {
        "counterparty": payee.for_bulk(),
        "amount": minor_units(fields.get("amount"), currency, f"{where}: amount"),
        "reference": check_text(fields.get("reference"), f"{where}: reference"),
    }
    if "correlation_id" in fields:
        own = check_text(fields["correlation_id"], f"{where}: correlation_id")
        if own.lower() in NO_VALUE:
            raise IntergiroValueError(
                f"{where}: correlation_id is {own!r}. Nothing was sent. Check where it comes from, or leave it out."
            )
        content["correlation_id"] = own
    return Item(content, payee.masked())


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False)
