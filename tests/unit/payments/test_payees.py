# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.payees import read_payee, same_iban

IBAN, BIC = "SE4550000000058398257466", "ESSESESS"


@pytest.mark.parametrize(
    "given",
    [
        {"name": "Ada", "iban": IBAN, "bic": BIC},
        {"name": " Ada ", "iban": "se45 5000 0000 0583 9825 7466", "bic": "essesess"},
        {"name": "Ada", "account": {"iban": IBAN, "bic": BIC}},
        {"name": "Ada", "account": {"account_iban": IBAN, "account_bic": BIC}},
    ],
)
def test_forms_of_an_account_at_another_bank(given: dict[str, Any]) -> None:
    payee = read_payee(given)
    assert payee.for_pay() == {"name": "Ada", "account": {"iban": IBAN, "bic": BIC}}
    assert payee.for_bulk() == {"name": "Ada", "account": {"account_iban": IBAN, "account_bic": BIC}}
    assert payee.masked() == "SE…7466"
    assert IBAN not in repr(payee)
    assert "Ada" not in repr(payee)


def test_an_intergiro_account() -> None:
    assert read_payee({"name": "Ada", "account_id": "a1"}).for_pay() == {"name": "Ada", "account_id": "a1"}


REFUSED: list[tuple[Any, str]] = [
    (None, "is None"),
    ("Ada", "is a value of type str"),
    ({}, "has no name"),
    ({"name": ""}, "name is empty"),
    ({"name": 5}, "name is a value of type int"),
    ({"name": "A\nB", "account_id": "a"}, "line break"),
    ({"name": "Ada"}, "either account_id, or iban and bic"),
    ({"name": "Ada", "account_id": "a", "iban": IBAN, "bic": BIC}, "either account_id, or iban and bic"),
    ({"name": "Ada", "iban": IBAN}, "only one of iban and bic"),
    ({"name": "Ada", "bic": BIC}, "only one of iban and bic"),
    ({"name": "Ada", "iban": "SE4550000000058398257467", "bic": BIC}, r"iban is not valid \(InvalidChecksumDigits\)"),
    ({"name": "Ada", "iban": "SE45", "bic": BIC}, r"iban is not valid \(Invalid\w+\)"),
    ({"name": "Ada", "iban": IBAN, "bic": "ESSE"}, r"bic is not valid \(InvalidLength\)"),
    ({"name": "Ada", "ibn": IBAN}, "unknown field 'ibn'"),
    ({"name": "Ada", "iban": IBAN, "bic": BIC, "account": {"iban": "DE89370400440532013000"}}, "a field twice"),
    ({"name": "Ada", "account": {"iban": IBAN, "account_iban": IBAN, "bic": BIC}}, "a field twice"),
    ({"name": "Ada", "account": IBAN}, "account is a value of type str"),
    ({"Ada": {"iban": IBAN, "bic": BIC}}, "unknown field <not shown>"),  # a Variable that holds several payees
    ({"name": "Ada", "account": {IBAN: BIC}}, "unknown field <not shown>"),
]


@pytest.mark.parametrize(("given", "problem"), REFUSED)
def test_refused(given: Any, problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem) as caught:
        read_payee(given)
    assert not any(secret in str(caught.value) for secret in (IBAN, BIC, "Ada", IBAN[:-1]))


def test_spellings_of_an_iban() -> None:
    assert same_iban("se45 5000", "SE455000")
    assert not same_iban("SE45", "SE46")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schwifty", None)
    with pytest.raises(IntergiroValueError, match=r"airflow-provider-intergiro\[payments\]"):
        read_payee({"name": "Ada", "iban": IBAN, "bic": BIC})
