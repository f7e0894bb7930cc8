# SPDX-License-Identifier: Apache-2.0
"""Who is paid: an account at Intergiro, or an IBAN and a BIC at another bank, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import EXTRA

FIELDS = frozenset({"name", "account_id", "iban", "bic"})


@dataclass(frozen=True, slots=True)
class Payee:
    """A counterparty.

    :param account_id: the id of an Intergiro account; None for an account at another bank.
    :param iban: without spaces, in capitals; None for an Intergiro account.
    """

    name: str = field(repr=False)
    account_id: str | None = field(repr=False, default=None)
    iban: str | None = field(repr=False, default=None)
    bic: str | None = field(repr=False, default=None)

    def for_pay(self) -> dict[str, Any]:
        """Return the form of 3d ``transactions/pay``."""
        if self.account_id is not None:
            return {"name": self.name, "account_id": self.account_id}
        return {"name": self.name, "account": {"iban": self.iban, "bic": self.bic}}

    def for_bulk(self) -> dict[str, Any]:
        """Return the form of an item of 2d ``bulk_payments``."""
        return {"name": self.name, "account": {"account_iban": self.iban, "account_bic": self.bic}}

    def masked(self) -> str:
        """Return what a record shows: the country and the last four characters of an IBAN, no name."""
        if self.iban is None:
            return "Intergiro account"
        return f"{self.iban[:2]}…{self.iban[-4:]}"


def read_payee(given: Any, where: str = "`counterparty`") -> Payee:
    """Read ``{name, account_id}`` or ``{name, iban, bic}``; the portal's nested forms are accepted as well.

    :raises IntergiroValueError: something is missing, unknown or not valid. The message quotes no value.
    """
    if not isinstance(given, Mapping):
        raise _refused(where, f"is a {type(given).__name__}", "Give a dict of name and account_id, or name, iban, bic.")
    fields = {str(name): value for name, value in given.items()}
    account = fields.pop("account", None)
    if isinstance(account, Mapping):
        fields |= {str(name).removeprefix("account_"): value for name, value in account.items()}
    elif account is not None:
        raise _refused(f"{where}.account", f"is a {type(account).__name__}", "Give a dict of iban and bic.")
    if unknown := sorted(fields.keys() - FIELDS):
        raise _refused(where, f"has the unknown field {unknown[0]!r}", f"There are {', '.join(sorted(FIELDS))}.")
    texts = {name: text(value, f"{where}.{name}") for name, value in fields.items()}
    if "name" not in texts:
        raise _refused(where, "has no name", "Give the payee's name.")
    if ("account_id" in texts) is ("iban" in texts or "bic" in texts):
        raise _refused(where, "needs either account_id, or iban and bic", "Give one of the two.")
    if "account_id" in texts:
        return Payee(texts["name"], account_id=texts["account_id"])
    if "iban" not in texts or "bic" not in texts:
        raise _refused(where, "has only one of iban and bic", "Give both.")
    iban, bic = _checked(texts["iban"], texts["bic"], where)
    return Payee(texts["name"], iban=iban, bic=bic)


def text(value: Any, where: str) -> str:
    """Return a text that is not empty, without spaces around it.

    :raises IntergiroValueError: it is something else.
    """
    if not isinstance(value, str):
        raise _refused(where, f"is a {type(value).__name__}", "Give a text.")
    stripped = value.strip()
    if not stripped:
        raise _refused(where, "is empty", "Give a text, or check the template that it comes from.")
    if not stripped.isprintable():
        raise _refused(where, "holds a line break or a control character", "Remove it.")
    return stripped


def same_iban(one: str, other: str) -> bool:
    """Return whether two spellings are the same IBAN."""
    return _compact(one) == _compact(other)


def _compact(iban: str) -> str:
    return re.sub(r"\s", "", iban).upper()


def _checked(iban: str, bic: str, where: str) -> tuple[str, str]:
    try:
        from schwifty import BIC, IBAN
        from schwifty.exceptions import SchwiftyException
    except ImportError:
        raise IntergiroValueError(
            f"{where} holds an IBAN, and schwifty, which checks it, is not installed. Install it: {EXTRA}. "
            "Nothing was sent."
        ) from None
    try:
        checked_iban = IBAN(iban)
    except SchwiftyException as error:
        raise _refused(f"{where}.iban", f"is not valid ({type(error).__name__})", "Check it.") from None
    try:
        checked_bic = BIC(bic)
    except SchwiftyException as error:
        raise _refused(f"{where}.bic", f"is not valid ({type(error).__name__})", "Check it.") from None
    return str(checked_iban.compact), str(checked_bic.compact)


def _refused(where: str, what: str, remedy: str) -> IntergiroValueError:
    return IntergiroValueError(f"{where} {what}. {remedy} Nothing was sent.")
