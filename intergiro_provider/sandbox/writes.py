# SPDX-License-Identifier: Apache-2.0
"""The writing endpoints: payments and moves, idempotent by `request_id`, and batches that wait for approval."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from intergiro_provider.sandbox.collection import iso
from intergiro_provider.sandbox.consents import Consents
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.lists import Invalid
from intergiro_provider.sandbox.settings import Settings

MAX_ITEMS = 1000
MAX_WAITING_BATCHES = 100

Record = dict[str, Any]


class Conflict(Exception):
    """A write that cannot be done in the present state."""


class Writes:
    """What was written since the start.

    :param clock: epoch seconds; the moment at which a new transaction is booked.
    """

    def __init__(
        self, settings: Callable[[], Settings], counters: Counters, consents: Consents, clock: Callable[[], float]
    ) -> None:
        self._settings, self.counters, self._consents, self._clock = settings, counters, consents, clock
        self._done: dict[str, tuple[Record, Record]] = {}
        self.batches: dict[str, Record] = {}

    def transfer(self, kind: str, body: bytes, data: Data) -> Record:
        """`pay` somebody or `move` between own accounts; the same `request_id` again gives the same transaction.

        :raises Invalid: the body does not validate.
        :raises ConsentMissing: the amount needs a person's consent.
        :raises Conflict: the `request_id` was used with another body.
        """
        sent = _object(body)
        request_id = _text(sent, "request_id")
        try:
            uuid.UUID(request_id)
        except ValueError:
            raise Invalid("request_id", "Must be a UUID.") from None
        if request_id in self._done:
            former, result = self._done[request_id]
            if former != {"kind": kind, **sent}:
                raise Conflict("This request_id was used with another body.")
            self.counters.duplicates += 1
            return result
        account = _account(sent, "account_id", data)
        amount = _amount(sent)
        other: Record = {}
        if kind == "move":
            other = {"name": _account(sent, "to_account_id", data)["name"], "account_id": sent["to_account_id"]}
        else:
            other = _counterparty(sent)
        settings = self._settings()
        if kind == "pay" and settings.pay_consent_above and amount > settings.pay_consent_above:
            self._consents.need(request_id, "make_payment")
        record = {
            "type": "move" if kind == "move" else "bank-transfer",
            "amount": -amount,
            "currency": account["currency"],
            "status": "completed" if kind == "move" else "pending",
            "account_id": account["id"],
            "reference": _text(sent, "reference"),
            "request_id": request_id,
            "exchange_rate": None,
            "payment_amount": -amount,
            "payment_currency": account["currency"],
            "counterparty": other,
        }
        self.counters.writes += 1
        result = data.transactions.add(record, round(self._clock() * 1000))
        self._done[request_id] = ({"kind": kind, **sent}, result)
        return result

    def bulk(self, body: bytes, data: Data) -> Record:
        """A batch of payments, which waits for a person's approval.

        :raises Invalid: the body does not validate, or too many batches wait.
        """
        sent = _object(body)
        account = _account(sent, "account_id", data)
        items = sent.get("items")
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
            raise Invalid("items", f"Must be a list of 1 to {MAX_ITEMS} items.", "out_of_range")
        for place, item in enumerate(items):
            try:
                if not isinstance(item, dict):
                    raise Invalid("", "Must be an object.")
                _no_nulls(item)
                _counterparty(item), _amount(item), _text(item, "reference")
                if "correlation_id" in item:
                    _text(item, "correlation_id")
            except Invalid as problem:
                raise Invalid(f"items.{place}.{problem.field}".rstrip("."), problem.message, problem.code) from None
        if len(self.batches) >= MAX_WAITING_BATCHES:
            raise Invalid("", f"{MAX_WAITING_BATCHES} batches wait for approval already.", "too_many_batches")
        batch = {
            "id": str(uuid.uuid4()),
            "account_id": account["id"],
            "status": "pending_approval",
            "items_count": len(items),
            "amount": sum(item["amount"] for item in items),
            "created_at": iso(round(self._clock() * 1000)),
        }
        self.counters.writes += 1
        self.batches[batch["id"]] = batch
        return batch


def _object(body: bytes) -> Record:
    try:
        sent = json.loads(body)
    except ValueError:
        raise Invalid("", "The body must be JSON.", "not_json") from None
    if not isinstance(sent, dict):
        raise Invalid("", "The body must be a JSON object.")
    _no_nulls(sent)
    return sent


def _no_nulls(sent: Record) -> None:
    for name, value in sent.items():
        if value is None:
            raise Invalid(name, "Must be left out rather than null.")
        if value == "":
            raise Invalid(name, "Must not be empty.")


def _text(sent: Record, name: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str) or not value:
        raise Invalid(name, "Must be a non-empty string.")
    return value


def _amount(sent: Record) -> int:
    value = sent.get("amount")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Invalid("amount", "Must be a positive integer in minor units.")
    return value


def _account(sent: Record, name: str, data: Data) -> Record:
    serial = data.accounts.serial(_text(sent, name))
    if serial is None:
        raise Invalid(name, "No such account.", "not_found")
    return data.accounts.values[serial]


def _counterparty(sent: Record) -> Record:
    value = sent.get("counterparty")
    if not isinstance(value, dict):
        raise Invalid("counterparty", "Must be an object.")
    _no_nulls(value)
    _text(value, "name")
    return value
