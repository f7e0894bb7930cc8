# SPDX-License-Identifier: Apache-2.0
"""What is to be paid: checked, in the bank's form, and with a digest that a person can approve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import check_currency, minor_units
from intergiro_provider.payments.payees import Payee, read_payee, text

OPERATIONS = ("pay", "move")


@dataclass(frozen=True, slots=True)
class Payment:
    """A single payment at 3d.

    :param operation: ``pay`` somebody, or ``move`` between accounts of one holder.
    :param amount: minor units.
    :param currency: that of the account as the user states it; None if not stated.
    :param payee: whom to pay; None for a move.
    :param target_account_id: where a move goes; None for a payment.
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
        """The endpoint that it is sent to."""
        return f"transactions/{self.operation}"

    @property
    def body(self) -> dict[str, Any]:
        """Its fields, as the bank wants them, without `request_id`."""
        fields: dict[str, Any] = {"amount": self.amount, "reference": self.reference}
        if self.payee is not None:
            return {"account_id": self.account_id, "counterparty": self.payee.for_pay(), **fields}
        return {"source_account_id": self.account_id, "target_account_id": self.target_account_id, **fields}

    @property
    def digest(self) -> str:
        """SHA-256 of what is paid; the same for the same payment, whatever its key."""
        return digest_of([self.endpoint, self.body])

    @property
    def masked(self) -> str:
        """The other side, as a record may show it."""
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
    """Check the arguments of a single payment.

    :raises IntergiroValueError: names the argument that is wrong; nothing was sent.
    """
    if operation not in OPERATIONS:
        raise IntergiroValueError(f"`operation` is {operation!r}; it must be 'pay' or 'move'. Nothing was sent.")
    needed, other = ("counterparty", target_account_id), "target_account_id"
    if operation == "move":
        needed, other = ("target_account_id", counterparty), "counterparty"
    if needed[1] is not None:
        raise IntergiroValueError(
            f"`{other}` has no place in operation={operation!r}, which takes `{needed[0]}`. Nothing was sent."
        )
    code = check_currency(currency)
    payment = Payment(
        operation=operation,
        account_id=text(account_id, "`account_id`"),
        amount=minor_units(amount, code),
        reference=text(reference, "`reference`"),
        currency=code,
        payee=read_payee(counterparty) if operation == "pay" else None,
        target_account_id=text(target_account_id, "`target_account_id`") if operation == "move" else None,
    )
    if payment.target_account_id == payment.account_id:
        raise IntergiroValueError("`target_account_id` is `account_id`: a move needs two accounts. Nothing was sent.")
    return payment


def totals_of(amounts: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Return the sum of each currency, in minor units."""
    totals: dict[str, int] = {}
    for currency, amount in amounts:
        totals[currency or "unknown"] = totals.get(currency or "unknown", 0) + amount
    return totals


def plan_of(count: int, totals: Mapping[str, int], digest: str) -> dict[str, Any]:
    """Return what `dry_run` returns, and what a person approves."""
    return {"count": count, "totals": dict(totals), "sha256": digest}


def check_approval(approved: Any, digest: str) -> None:
    """Refuse a plan that is not the approved one.

    :param approved: the digest that was approved; None: no approval is needed.
    :raises IntergiroValueError: it is another one.
    """
    if approved is not None and approved != digest:
        raise IntergiroValueError(
            f"`approved_plan` is {str(approved)[:12]!r}…, but what is to be paid has the plan {digest[:12]!r}…: it "
            "has changed since it was approved. Nothing was sent. Have the new plan approved."
        )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of JSON content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
