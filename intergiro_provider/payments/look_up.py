# SPDX-License-Identifier: Apache-2.0
"""Find out at the bank whether a payment was made, and whether it is the one that was requested.

Only GET requests are sent here. The bank's list can be late: a payment that is not found may still appear.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from intergiro_provider.exceptions import PaymentMismatch, looks_like_an_id
from intergiro_provider.payments.payees import same_iban
from intergiro_provider.payments.plan import Payment
from intergiro_provider.payments.record import parse_time
from intergiro_provider.pull.pages import Page, decoded, iter_pages

FetchPage = Callable[[Mapping[str, Any]], Page]
CLOCK_SKEW = timedelta(minutes=15)
"""How far the bank's clock may be behind ours."""
CHUNK = 50
"""The number of correlation ids in one request."""
REJECTED = frozenset({"rejected", "failed", "declined", "refused", "cancelled", "canceled"})
"""Statuses of a payment that the bank will not carry out."""


@dataclass
class LookUp:
    """The result of a look-up for a single payment.

    :param payment: the transaction with the payment's key; None if there is none.
    :param without_key: ids of transactions that show no key and are otherwise equal.
    :param other_key: ids of transactions that show another key and are otherwise equal.
    """

    payment: dict[str, Any] | None = None
    without_key: list[str] = field(default_factory=list)
    other_key: list[str] = field(default_factory=list)


def find_payment(fetch: FetchPage, payment: Payment, key: str, since: datetime) -> LookUp:
    """Look for a single payment in the account's transactions.

    :param fetch: requests a page of ``transactions``.
    :param since: the earliest time at which the payment may have been sent.
    :raises PaymentMismatch: the bank has made the payment more than once.
    """
    found, exact = LookUp(), []
    since -= CLOCK_SKEW
    query = {
        "account_ids": [payment.account_id], "created_from": _format_time(since), "sort_by": "created_at",
        "sort_type": "DESC",
    }  # fmt: skip
    for transaction in _transactions(fetch, query):
        created = parse_time(transaction.get("created_at"))
        if created is not None and created < since:
            break  # this bank ignores `created_from`
        if transaction.get("account_id") not in (None, payment.account_id):
            continue
        shown = transaction.get("request_id")
        if _is_key(shown, key):
            exact.append(transaction)
        elif not differences(payment, transaction):
            (found.other_key if shown else found.without_key).append(shown_id(transaction))
    if len({shown_id(transaction) for transaction in exact}) > 1:
        ids = ", ".join(shown_id(transaction) for transaction in exact)
        raise PaymentMismatch(
            f"Intergiro has carried out the payment {key} more than once: transactions {ids}. It did not recognize "
            "the idempotency key. Have all but one returned, and set key_trusted_for=timedelta(0)."
        )
    found.payment = exact[0] if exact else None
    return found


def differences(payment: Payment, transaction: Mapping[str, Any], key: str | None = None) -> list[str]:
    """Return the names of the fields in which a transaction differs from the payment.

    Fields that the transaction does not show count as equal. Signs of amounts and names of payees are not compared,
    because banks set the sign and rewrite names.

    :param key: the payment's idempotency key; None: keys are not compared.
    """
    differ = []
    if key and (shown := transaction.get("request_id")) and not _is_key(shown, key):
        differ.append("request_id")
    amount = transaction.get("amount")
    if isinstance(amount, int) and abs(amount) != payment.amount:
        differ.append("amount")
    if payment.currency and str(transaction.get("currency") or payment.currency).upper() != payment.currency:
        differ.append("currency")
    if transaction.get("account_id") not in (None, payment.account_id):
        differ.append("account_id")
    reference = transaction.get("reference")
    if isinstance(reference, str) and _normalized(reference) != _normalized(payment.reference):
        differ.append("reference")
    if not _has_payee(payment, transaction.get("counterparty")):
        differ.append("counterparty")
    return differ


def check_same(payment: Payment, transaction: Mapping[str, Any], key: str) -> None:
    """Check that a transaction is the payment that was requested.

    :raises PaymentMismatch: names the transaction and the fields that differ.
    """
    if differ := differences(payment, transaction, key):
        payment_id = shown_id(transaction)
        raise PaymentMismatch(
            f"Intergiro shows the transaction {payment_id} for the idempotency key {key}, but it differs in "
            f"{', '.join(differ)} from the payment that this task requests. It is either another payment, made earlier "
            "with this key, or this payment, changed by the bank. Look at it in the Intergiro customer portal. If it "
            "is the payment that you want, mark this task as success. To make another payment, start a new run or set "
            "another `payment_key`.",
            payment_id,
        )


def mismatch(key: str, payment_id: str | None, how: str) -> PaymentMismatch:
    """Return the error for a key with which another payment was made.

    :param how: how that payment differs, as the end of the clause "a payment that …".
    """
    return PaymentMismatch(
        f"The idempotency key {key} belongs to a payment that {how}: transaction {payment_id or 'not known'}. Nothing "
        "was paid now. Look at that payment in the Intergiro customer portal. To make both payments, start a new run "
        "or set another `payment_key`. To keep only the earlier one, mark this task as success.",
        payment_id,
    )


def shown_id(transaction: Mapping[str, Any]) -> str:
    """Return a transaction's id if a message may show it."""
    shown = transaction.get("id")
    return shown if isinstance(shown, str) and looks_like_an_id(shown) else "<without a usable id>"


def filter_works(fetch: FetchPage, since: datetime | None) -> bool:
    """Return whether the bank applies the filter `correlation_ids`: for an unused id, its list must be empty."""
    return not any(True for _ in _transactions(fetch, _by_correlation([str(uuid.uuid4())], since)))


def find_items(fetch: FetchPage, ids: Iterable[str], since: datetime | None) -> dict[str, dict[str, Any]]:
    """Return the transactions with these correlation ids: first in chunks, then each missing id alone.

    :param since: the earliest time at which an item may have been sent; None: no limit, for a wrong clock of the bank.
    """
    wanted = list(ids)
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        for transaction in _transactions(fetch, _by_correlation(chunk, since)):
            if (shown := transaction.get("correlation_id")) in chunk:
                found[shown] = transaction
    for missing in [each for each in wanted if each not in found]:
        for transaction in _transactions(fetch, _by_correlation([missing], since)):
            if transaction.get("correlation_id") in (None, missing):
                found[missing] = transaction
    return found


def _is_key(shown: Any, key: str) -> bool:
    return isinstance(shown, str) and shown.lower() == key.lower()  # a bank may show a UUID in capitals


def _normalized(reference: str) -> list[str]:
    return unicodedata.normalize("NFC", reference).split()


def _has_payee(payment: Payment, shown: Any) -> bool:
    """Return whether a transaction's counterparty can be the payment's payee."""
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


def _by_correlation(ids: list[str], since: datetime | None) -> dict[str, Any]:
    return {"correlation_ids": ids} | ({"created_from": _format_time(since - CLOCK_SKEW)} if since else {})


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _transactions(fetch: FetchPage, query: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for page in iter_pages(fetch, query):
        for record in page.records:
            transaction = decoded(record)
            if isinstance(transaction, dict):
                yield transaction
