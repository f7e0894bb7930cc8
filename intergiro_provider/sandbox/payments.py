# SPDX-License-Identifier: Apache-2.0
"""Payments: moves and single payments, idempotent by `request_id`, and batches that wait for approval."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intergiro_provider.sandbox.consents import Consents
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.forms import Account, Bulk, BulkItem, Move, Pay
from intergiro_provider.sandbox.lists import Invalid
from intergiro_provider.sandbox.settings import Settings

BULK_FEE = 20
"""The fee of each item in a batch, in cents."""

Record = dict[str, Any]


class Conflict(Exception):
    """A write that conflicts with an earlier one."""


@dataclass(frozen=True)
class Done:
    """A payment that was made: the request, its response, and when."""

    sent: Move | Pay
    response: Record
    at: float


@dataclass(frozen=True)
class Batch:
    """A batch that waits for approval."""

    data: Data
    account: Record
    ids: list[str]
    fee: int


class Payments:
    """Payments made since the start.

    :param settings: a function, because settings change while the sandbox runs.
    :param clock: returns epoch seconds, the time at which a new transaction is booked.
    """

    def __init__(
        self, settings: Callable[[], Settings], counters: Counters, consents: Consents, clock: Callable[[], float]
    ) -> None:
        self._settings, self.counters, self._consents, self._clock = settings, counters, consents, clock
        self._done: dict[str, Done] = {}
        self._waiting: list[Batch] = []

    def single(self, sent: Move | Pay, data: Data) -> Record:
        """Move money between own accounts, or make a payment.

        :raises Invalid: an account is not valid.
        :raises ConsentMissing: the amount needs the user's consent.
        :raises Conflict: the `request_id` was used before.
        """
        if (former := self._former(sent)) is not None:
            return former
        records = _move(sent, data) if isinstance(sent, Move) else _pay(sent, data)
        above = self._settings().pay_consent_above
        if isinstance(sent, Pay) and above and sent.amount > above:
            self._consents.need(sent.request_id, "make_payment", lambda: self._make(sent, records, data))
        return self._make(sent, records, data)

    def bulk(self, sent: Bulk, data: Data) -> Record:
        """Add a batch of SEPA payments, which waits for approval.

        :raises Invalid: the account is not in EUR, or too many batches wait.
        """
        account, limit = _account(sent.account_id, "account_id", data), self._settings().max_waiting_batches
        if account["currency"] != "EUR":
            raise Invalid("account_id", "Must be an account in EUR.")
        if len(self._waiting) >= limit:
            raise Invalid("", f"{limit} batches wait for approval already.", "too_many_batches")
        made = self._book([_item(item, account) for item in sent.items], data)
        net, fee = sum(item.amount for item in sent.items), BULK_FEE * len(sent.items)
        self._waiting.append(Batch(data, account, [record["id"] for record in made], fee))
        totals = {"eur": {"fee": fee, "net": net, "total": net + fee}}
        return {"account_id": account["id"], "id": str(uuid.uuid4()), "totals_by_currency": totals}

    def decide(self, *, approve: bool) -> int:
        """Approve or reject all waiting batches; return their number."""
        waiting, self._waiting = self._waiting, []
        now, status = self._now(), "pending" if approve else "rejected"
        for batch in waiting:
            transactions = batch.data.transactions
            for each in batch.ids:
                transactions.change(transactions.serial(each) or 0, {"status": status}, now)
            if approve:
                payee = {"name": "Intergiro", "account_id": None}
                fee = _transaction(batch.account, -batch.fee, "Fee", payee, type="fee", status="completed")
                transactions.add([fee], now)
        return len(waiting)

    def _former(self, sent: Move | Pay) -> Record | None:
        """Return the response to a `request_id` that was used before."""
        settings, done = self._settings(), self._done.get(sent.request_id)
        if done is None or settings.idempotency == "ignore":
            return None
        if settings.idempotency_life and self._clock() >= done.at + settings.idempotency_life:
            return None
        self.counters.duplicates += 1
        if settings.idempotency == "conflict" or (settings.idempotency == "keep" and done.sent != sent):
            raise Conflict("This request_id was used before.")
        return done.response

    def _make(self, sent: Move | Pay, records: list[Record], data: Data) -> Record:
        response = self._book(records, data)[0]
        if isinstance(sent, Pay):
            # As in the portal's example: the amount is positive, and request_id is not shown.
            response = {**response, "amount": sent.amount}
            del response["request_id"]
        self._done[sent.request_id] = Done(sent, response, self._clock())
        return response

    def _book(self, records: list[Record], data: Data) -> list[Record]:
        self.counters.writes += 1
        return data.transactions.add(records, self._now(), found_after=self._settings().correlation_delay)

    def _now(self) -> int:
        return round(self._clock() * 1000)


def _move(sent: Move, data: Data) -> list[Record]:
    """Both sides of a move."""
    source = _account(sent.source_account_id, "source_account_id", data)
    target = _account(sent.target_account_id, "target_account_id", data)
    if source["id"] == target["id"] or source["currency"] != target["currency"]:
        raise Invalid("target_account_id", "Must be another account of the same currency.")
    both = ((source, target, -sent.amount), (target, source, sent.amount))
    return [
        _transaction(own, amount, sent.reference, _own(other), request_id=sent.request_id)
        for own, other, amount in both
    ]


def _pay(sent: Pay, data: Data) -> list[Record]:
    account, payee = _account(sent.account_id, "account_id", data), sent.counterparty
    other: Record = {"name": payee.name, "account_id": None}
    if isinstance(payee.account, Account):
        other["account_details"] = {"type": "sepa", "iban": payee.account.iban}
    else:
        other["account_id"] = payee.account_id
    return [_transaction(account, -sent.amount, sent.reference, other, request_id=sent.request_id)]


def _item(item: BulkItem, account: Record) -> Record:
    payee = item.counterparty
    details = {"number": payee.account.account_iban, "bank_code": payee.account.account_bic}
    other = {"name": payee.name, "account_id": None, "account_details": details}
    optional = {"correlation_id": item.correlation_id} if isinstance(item.correlation_id, str) else {}
    return _transaction(account, -item.amount, item.reference, other, status="pending_approval", **optional)


def _transaction(
    account: Record,
    amount: int,
    reference: str,
    counterparty: Record,
    *,
    type: str = "bank-transfer",
    status: str = "pending",
    **fields: str,
) -> Record:
    return {
        "type": type,
        "amount": amount,
        "currency": account["currency"],
        "status": status,
        "account_id": account["id"],
        "reference": reference,
        **fields,
        "exchange_rate": None,
        "payment_amount": amount,
        "payment_currency": account["currency"],
        "counterparty": counterparty,
    }


def _own(account: Record) -> Record:
    return {"name": account["name"], "account_id": account["id"]}


def _account(id: str, field: str, data: Data) -> Record:
    serial = data.accounts.serial(id)
    if serial is None:
        raise Invalid(field, "No such account.", "not_found")
    return data.accounts.values[serial]
