# SPDX-License-Identifier: Apache-2.0
"""Payments: moves and single payments, idempotent by `request_id`, and batches that wait for approval."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from intergiro_provider.sandbox.consents import Consents
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.forms import Account, Bulk, BulkItem, Move, Pay
from intergiro_provider.sandbox.lists import Invalid
from intergiro_provider.sandbox.settings import Settings

MAX_WAITING_BATCHES = 100
BULK_FEE = 20
"""The fee of each item in a batch, in cents."""

Record = dict[str, Any]


class Conflict(Exception):
    """A write that cannot be done in the present state."""


class Payments:
    """Payments made since the start.

    :param clock: epoch seconds; the moment at which a new transaction is booked.
    """

    def __init__(
        self, settings: Callable[[], Settings], counters: Counters, consents: Consents, clock: Callable[[], float]
    ) -> None:
        self._settings, self.counters, self._consents, self._clock = settings, counters, consents, clock
        self._done: dict[str, tuple[Move | Pay, Record]] = {}
        self._waiting: set[str] = set()

    def single(self, sent: Move | Pay, data: Data) -> Record:
        """Move money between own accounts, or pay someone. The same `request_id` again gives the same answer.

        :raises Invalid: the accounts do not fit.
        :raises ConsentMissing: the amount needs a person's consent.
        :raises Conflict: the `request_id` was used with another body.
        """
        if sent.request_id in self._done:
            former, answer = self._done[sent.request_id]
            if former != sent:
                raise Conflict("This request_id was used with another body.")
            self.counters.duplicates += 1
            return answer
        records = _move(sent, data) if isinstance(sent, Move) else _pay(sent, data)
        above = self._settings().pay_consent_above
        if isinstance(sent, Pay) and above and sent.amount > above:
            self._consents.need(sent.request_id, "make_payment")
        answer = self._book(records, data)[0]
        if isinstance(sent, Pay):
            # As in the portal's example: the amount is positive, and request_id is not shown.
            answer = {**answer, "amount": sent.amount}
            del answer["request_id"]
        self._done[sent.request_id] = sent, answer
        return answer

    def bulk(self, sent: Bulk, data: Data) -> Record:
        """A batch of SEPA payments, which waits for a person's approval.

        :raises Invalid: the account is not in EUR, or too many batches wait.
        """
        account = _account(sent.account_id, "account_id", data)
        if account["currency"] != "EUR":
            raise Invalid("account_id", "Must be an account in EUR.")
        if len(self._waiting) >= MAX_WAITING_BATCHES:
            raise Invalid("", f"{MAX_WAITING_BATCHES} batches wait for approval already.", "too_many_batches")
        self._book([_item(item, account) for item in sent.items], data)
        batch = str(uuid.uuid4())
        self._waiting.add(batch)
        net, fee = sum(item.amount for item in sent.items), BULK_FEE * len(sent.items)
        totals = {"eur": {"fee": fee, "net": net, "total": net + fee}}
        return {"account_id": account["id"], "id": batch, "totals_by_currency": totals}

    def _book(self, records: list[Record], data: Data) -> list[Record]:
        self.counters.writes += 1
        return data.transactions.add(records, round(self._clock() * 1000))


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
    account: Record, amount: int, reference: str, counterparty: Record, *, status: str = "pending", **fields: str
) -> Record:
    return {
        "type": "bank-transfer",
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
