# SPDX-License-Identifier: Apache-2.0
"""The bodies of the writing endpoints, as the bank's portal documents them. Other bodies are refused."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType, ValidationError, json

from intergiro_provider.sandbox.lists import Invalid

MAX_ITEMS = 1000

Text = Annotated[str, Meta(min_length=1)]
Amount = Annotated[int, Meta(gt=0)]
RequestId = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


class Form(Struct, forbid_unknown_fields=True):
    """A JSON object with exactly these fields. An optional field is left out; null is refused."""


class Account(Form):
    """An account at another bank (3d)."""

    iban: Text
    bic: Text


class Counterparty(Form):
    """The payee, with either an Intergiro account or one at another bank (3d)."""

    name: Text
    account_id: Text | UnsetType = UNSET
    account: Account | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.account_id is UNSET) is (self.account is UNSET):
            raise ValueError("Object needs either `account_id` or `account`")


class Pay(Form):
    """POST /v3/transactions/pay."""

    request_id: RequestId
    account_id: Text
    counterparty: Counterparty
    amount: Amount
    reference: Text


class Move(Form):
    """POST /v3/transactions/move."""

    request_id: RequestId
    source_account_id: Text
    target_account_id: Text
    amount: Amount
    reference: Text


class BulkAccount(Form):
    """The payee's account (2d)."""

    account_iban: Text
    account_bic: Text


class BulkCounterparty(Form):
    """2d: the payee."""

    name: Text
    account: BulkAccount


class BulkItem(Form):
    """One SEPA payment in EUR (2d)."""

    counterparty: BulkCounterparty
    amount: Amount
    reference: Text
    correlation_id: Text | UnsetType = UNSET


class Bulk(Form):
    """POST /v1/bulk_payments."""

    account_id: Text
    items: Annotated[list[BulkItem], Meta(min_length=1, max_length=MAX_ITEMS)]


class Open(Struct):
    """A JSON object that may have other fields."""


class Login(Open):
    """POST /vN/auth/login."""

    api_key: Text


class Refresh(Open):
    """POST /vN/auth/refresh."""

    refresh_token: Text


class ConsentMethod(Open):
    """POST /v3/consents/{id}."""

    return_url: Annotated[str, Meta(pattern="^https?://")]


F = TypeVar("F", bound=Struct)


def read(body: bytes, form: type[F]) -> F:
    """Decode a request body.

    :raises Invalid: the body is not JSON, or does not fit the form.
    """
    try:
        return json.decode(body, type=form)
    except ValidationError as problem:
        raise _invalid(str(problem)) from None
    except (DecodeError, UnicodeDecodeError):
        raise Invalid("", "The body must be JSON.", "not_json") from None


def _invalid(problem: str) -> Invalid:
    # msgspec says "Object missing required field `iban` - at `$.counterparty.account`".
    message, _, place = problem.partition(" - at `$")
    path = re.findall(r"\w+", place)
    code = "invalid"
    if named := re.search(r"(missing required|unknown) field `(.*)`$", message):
        path.append(named[2])
        code = "missing" if named[1] != "unknown" else "unknown_field"
    return Invalid(".".join(path), message, code)
