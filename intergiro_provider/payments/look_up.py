# SPDX-License-Identifier: Apache-2.0
"""Finding out at the bank whether a payment was made, and whether it is the one that was asked for.

Only GET requests are made here. A list may be late: what is not found may still appear.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from intergiro_provider.exceptions import PaymentMismatch, looks_like_an_id
from intergiro_provider.payments.payees import same_iban
from intergiro_provider.payments.plan import Payment
from intergiro_provider.payments.record import parsed
from intergiro_provider.pull.pages import Page, decoded, iter_pages

FetchPage = Callable[[Mapping[str, Any]], Page]
CLOCKS = timedelta(minutes=15)
"""By how much the bank's clock may be behind ours."""
CHUNK = 50
"""Correlation ids in one request."""
REJECTED = frozenset({"rejected", "failed", "declined", "refused", "cancelled", "canceled"})
"""Statuses of a payment that will not happen."""


@dataclass
class Found:
    """What a look-up for a single payment has found.

    :param payment: the transaction that shows the payment's key; None if none does.
    :param similar: ids of transactions that show no key and are otherwise equal.
    :param others: ids of transactions that show another key and are otherwise equal.
    """

    payment: dict[str, Any] | None = None
    similar: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def find_payment(fetch: FetchPage, payment: Payment, key: str, since: datetime) -> Found:
    """Look for a single payment among the account's transactions.

    :param fetch: requests a page of ``transactions``.
    :param since: before it, nothing was sent.
    :raises PaymentMismatch: the bank has made it more than once.
    """
    found, exact = Found(), []
    since -= CLOCKS
    query = {
        "account_ids": [payment.account_id], "created_from": _instant(since), "sort_by": "created_at",
        "sort_type": "DESC",
    }  # fmt: skip
    for transaction in _transactions(fetch, query):
        created = parsed(transaction.get("created_at"))
        if created is not None and created < since:
            break  # of a bank that ignores `created_from`
        if transaction.get("account_id") not in (None, payment.account_id):
            continue
        shown = transaction.get("request_id")
        if shown == key:
            exact.append(transaction)
        elif not differences(payment, transaction):
            (found.others if shown else found.similar).append(shown_id(transaction))
    if len({shown_id(transaction) for transaction in exact}) > 1:
        ids = ", ".join(shown_id(transaction) for transaction in exact)
        raise PaymentMismatch(
            f"Intergiro has carried out the payment {key} more than once: transactions {ids}. It did not recognize "
            "the idempotency key. Have all but one returned, and set key_trusted_for=timedelta(0)."
        )
    found.payment = exact[0] if exact else None
    return found


def differences(payment: Payment, transaction: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields in which a transaction differs from the payment; what it does not show is equal.

    The sign of the amount is the bank's matter. Names of payees are not compared, since banks rewrite them.
    """
    differ = []
    amount = transaction.get("amount")
    if isinstance(amount, int) and abs(amount) != payment.amount:
        differ.append("amount")
    if payment.currency and str(transaction.get("currency") or payment.currency).upper() != payment.currency:
        differ.append("currency")
    if transaction.get("account_id") not in (None, payment.account_id):
        differ.append("account_id")
    reference = transaction.get("reference")
    if isinstance(reference, str) and reference.split() != payment.reference.split():
        differ.append("reference")
    if not _is_payee(payment, transaction.get("counterparty")):
        differ.append("counterparty")
    return differ


def check_same(payment: Payment, transaction: Mapping[str, Any], key: str) -> None:
    """Refuse a transaction that is not the payment that was asked for.

    :raises PaymentMismatch: names the transaction and the fields that differ.
    """
    if differ := differences(payment, transaction):
        raise mismatch(key, shown_id(transaction), f"differs in {', '.join(differ)} from what is asked for now")


def mismatch(key: str, payment_id: str | None, how: str) -> PaymentMismatch:
    """Return the error for a key under which something else was paid."""
    return PaymentMismatch(
        f"The idempotency key {key} belongs to a payment that {how}: transaction {payment_id or 'not known'}. Nothing "
        "was paid now. Look at that payment in the Intergiro customer portal. If both shall be paid, start a new run "
        "or set another `payment_key`; if only the former, mark this task as success.",
        payment_id,
    )


def shown_id(transaction: Mapping[str, Any]) -> str:
    """Return a transaction's id as a message may show it."""
    shown = transaction.get("id")
    return shown if isinstance(shown, str) and looks_like_an_id(shown) else "<without a usable id>"


def filter_works(fetch: FetchPage, since: datetime | None) -> bool:
    """Return whether the list heeds `correlation_ids`: it must hold nothing for an id that nobody has used."""
    return not any(True for _ in _transactions(fetch, _correlated([str(uuid.uuid4())], since)))


def find_items(fetch: FetchPage, ids: Iterable[str], since: datetime | None) -> dict[str, dict[str, Any]]:
    """Return the transactions of these correlation ids: in chunks first, then each missing id alone.

    :param since: before it, nothing was sent; None: however wrong the bank's clock is.
    """
    wanted = list(ids)
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        for transaction in _transactions(fetch, _correlated(chunk, since)):
            if (shown := transaction.get("correlation_id")) in chunk:
                found[shown] = transaction
    for missing in [each for each in wanted if each not in found]:
        for transaction in _transactions(fetch, _correlated([missing], since)):
            if transaction.get("correlation_id") in (None, missing):
                found[missing] = transaction
    return found


def _is_payee(payment: Payment, shown: Any) -> bool:
    if not isinstance(shown, Mapping):
        return True
    if payment.payee is None or payment.payee.account_id is not None:
        wanted = payment.target_account_id if payment.payee is None else payment.payee.account_id
        return shown.get("account_id") in (None, wanted)
    ibans = [
        value
        for place in (shown.get("account_details"), shown.get("account"))
        if isinstance(place, Mapping) and isinstance(value := place.get("iban") or place.get("number"), str)
    ]
    return all(same_iban(value, payment.payee.iban or "") for value in ibans)


def _correlated(ids: list[str], since: datetime | None) -> dict[str, Any]:
    return {"correlation_ids": ids} | ({"created_from": _instant(since - CLOCKS)} if since else {})


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _transactions(fetch: FetchPage, query: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for page in iter_pages(fetch, query):
        for record in page.records:
            transaction = decoded(record)
            if isinstance(transaction, dict):
                yield transaction
