# SPDX-License-Identifier: Apache-2.0
"""The plan of a payment: checked, in the form that the API takes, and with a digest that a person can approve."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import check_currency, minor_units
from intergiro_provider.payments.payees import Payee, check_text, read_payee

OPERATIONS = ("pay", "move")


@dataclass(frozen=True, slots=True)
class Payment:
    """A single payment through the 3d API (banking as a service).

    :param operation: ``pay`` a payee, or ``move`` between accounts of one holder.
    :param amount: the amount in minor units.
    :param currency: the account's currency, if the user gave one; otherwise None.
    :param payee: the payee; None for ``move``.
    :param target_account_id: the account that receives; None for ``pay``.
    """

    operation: str
    account_id: str = field(repr=False)
    amount: int
    reference: str = field(repr=False)
    currency: str | None = None
    payee: Payee | None = None
    target_account_id: str | None = field(repr=False, default=None)

    @property
    def endpoint(self) -> str:
        """The endpoint for this payment."""
        return f"transactions/{self.operation}"

    @property
    def body(self) -> dict[str, Any]:
        """The body of the request, without `request_id`."""
        fields: dict[str, Any] = {"amount": self.amount, "reference": self.reference}
        if self.payee is not None:
            return {"account_id": self.account_id, "counterparty": self.payee.for_pay(), **fields}
        return {"source_account_id": self.account_id, "target_account_id": self.target_account_id, **fields}

    @property
    def digest(self) -> str:
        """SHA-256 of the endpoint and the body. It does not depend on the idempotency key."""
        return digest_of([self.endpoint, self.body])

    @property
    def masked(self) -> str:
        """The payee for a record."""
        return self.payee.masked() if self.payee else "own account"


def read_payment(
    operation: Any,
    account_id: Any,
    amount: Any,
    reference: Any,
    currency: Any = None,
    counterparty: Any = None,
    target_account_id: Any = None,
) -> Payment:
    """Check the arguments of a single payment, and return it.

    :raises IntergiroValueError: names the argument that is wrong.
    """
    if operation not in OPERATIONS:
        raise IntergiroValueError(f"`operation` is {operation!r}; it must be 'pay' or 'move'. Nothing was sent.")
    needed, other = ("counterparty", target_account_id), "target_account_id"
    if operation == "move":
        needed, other = ("target_account_id", counterparty), "counterparty"
    if needed[1] is not None:
        raise IntergiroValueError(
            f"`{other}` is not used with operation={operation!r}, which needs `{needed[0]}`. Nothing was sent. Remove "
            "it."
        )
    code = check_currency(currency)
    payment = Payment(
        operation=operation,
        account_id=check_text(account_id, "`account_id`"),
        amount=minor_units(amount, code),
        reference=check_text(reference, "`reference`"),
        currency=code,
        payee=read_payee(counterparty) if operation == "pay" else None,
        target_account_id=check_text(target_account_id, "`target_account_id`") if operation == "move" else None,
    )
    if payment.target_account_id == payment.account_id:
        raise IntergiroValueError(
            "`target_account_id` equals `account_id`. A move needs two accounts. Nothing was sent."
        )
    return payment


def totals_of(amounts: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Return the sum of each currency, in minor units; under ``unknown`` for amounts without a currency."""
    totals: dict[str, int] = {}
    for currency, amount in amounts:
        totals[currency or "unknown"] = totals.get(currency or "unknown", 0) + amount
    return totals


def plan_summary(count: int, totals: Mapping[str, int], digest: str) -> dict[str, Any]:
    """Return the result of a dry run, which a person approves."""
    return {"count": count, "totals": dict(totals), "sha256": digest}


def check_approval(approved: Any, digest: str) -> None:
    """Check that a plan is the approved one.

    :param approved: the digest that was approved; None: no approval is needed.
    :param digest: the digest of the plan.
    :raises IntergiroValueError: `approved` is another digest, or not a digest.
    """
    if approved is not None and not (isinstance(approved, str) and re.fullmatch("[0-9a-f]{64}", approved)):
        raise IntergiroValueError(
            "`approved_plan` is not the digest of a plan. Nothing was sent. Give the `sha256` that the task with "
            "`dry_run` returned."
        )
    if approved is not None and approved != digest:
        raise IntergiroValueError(
            f"`approved_plan` begins with {approved[:12]!r}, but the digest of this payment begins with "
            f"{digest[:12]!r}: the payment has changed since the approval. Nothing was sent. Have the new plan "
            "approved."
        )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of JSON content. It does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
