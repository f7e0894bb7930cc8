# SPDX-License-Identifier: Apache-2.0
"""Payees: an account at Intergiro, or an IBAN and a BIC at another bank, checked before anything is sent."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.amounts import INSTALL_COMMAND

FIELDS = frozenset({"name", "account_id", "iban", "bic"})


@dataclass(frozen=True, slots=True)
class Payee:
    """A payee, which the API calls counterparty.

    :param account_id: the id of an Intergiro account; None for an account at another bank.
    :param iban: without spaces, in capitals; None for an Intergiro account.
    """

    name: str = field(repr=False)
    account_id: str | None = field(repr=False, default=None)
    iban: str | None = field(repr=False, default=None)
    bic: str | None = field(repr=False, default=None)

    def for_pay(self) -> dict[str, Any]:
        """Return the payee as ``transactions/pay`` of the 3d API (banking as a service) takes it."""
        if self.account_id is not None:
            return {"name": self.name, "account_id": self.account_id}
        return {"name": self.name, "account": {"iban": self.iban, "bic": self.bic}}

    def for_bulk(self) -> dict[str, Any]:
        """Return the payee as an item of ``bulk_payments`` of the 2d API (business banking) takes it."""
        return {"name": self.name, "account": {"account_iban": self.iban, "account_bic": self.bic}}

    def masked(self) -> str:
        """Return the payee for a record: the country and the last four characters of the IBAN, without the name."""
        if self.iban is None:
            return "Intergiro account"
        return f"{self.iban[:2]}…{self.iban[-4:]}"


def read_payee(given: Any, where: str = "`counterparty`") -> Payee:
    """Return the payee that a dict describes: ``{name, account_id}``, ``{name, iban, bic}``, or the API's nested form.

    :param where: the name of the dict in a message.
    :raises IntergiroValueError: a field is missing, unknown or not valid. The message shows no value.
    """
    if not isinstance(given, Mapping):
        raise _refused(where, f"is {type_of(given)}", "Give a dict of name and account_id, or name, iban, bic.")
    fields = {str(name): value for name, value in given.items()}
    account = fields.pop("account", None)
    if isinstance(account, Mapping):
        nested = [(str(name).removeprefix("account_"), value) for name, value in account.items()]
        if len(fields) + len(nested) > len(fields.keys() | dict(nested).keys()):
            raise _refused(where, "has a field twice", "Give each field once.")
        fields |= dict(nested)
    elif account is not None:
        raise _refused(f"{where}.account", f"is {type_of(account)}", "Give a dict of iban and bic.")
    if unknown := sorted(fields.keys() - FIELDS):
        field_name = shown_field(unknown[0], FIELDS)
        raise _refused(where, f"has the unknown field {field_name}", f"It accepts {', '.join(sorted(FIELDS))}.")
    texts = {name: check_text(value, f"{where}.{name}") for name, value in fields.items()}
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


def check_text(value: Any, where: str) -> str:
    """Return a string without spaces around it.

    :param where: the name of the value in a message.
    :raises IntergiroValueError: the value is not a string, or is empty, or holds a control character.
    """
    if not isinstance(value, str):
        raise _refused(where, f"is {type_of(value)}", "Give a string, or check the template that it comes from.")
    stripped = value.strip()
    if not stripped:
        raise _refused(where, "is empty", "Give a string, or check the template that it comes from.")
    if not stripped.isprintable():
        raise _refused(where, "contains a line break or a control character", "Remove it.")
    return stripped


def type_of(value: Any) -> str:
    """Return the type of a value for a message that must not show the value; ``None`` for None."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def shown_field(name: str, known: Iterable[str]) -> str:
    """Return the name of an unknown field for a message, if it is a misspelt known field and not a name or an IBAN."""
    return repr(name) if difflib.get_close_matches(name, sorted(known), n=1) else "<not shown>"


def same_iban(one: str, other: str) -> bool:
    """Return whether two strings are the same IBAN; spaces and case do not matter."""
    return _compact(one) == _compact(other)


def _compact(iban: str) -> str:
    return re.sub(r"\s", "", iban).upper()


def _checked(iban: str, bic: str, where: str) -> tuple[str, str]:
    try:
        from schwifty import BIC, IBAN
        from schwifty.exceptions import SchwiftyException
    except ImportError:
        raise IntergiroValueError(
            f"{where} holds an IBAN, and schwifty, which checks it, is not installed. Install it: {INSTALL_COMMAND}. "
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
