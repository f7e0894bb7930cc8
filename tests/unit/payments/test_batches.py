# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.batches import read_lines, read_plan

PAYEE = {"name": "Ada", "iban": "SE4550000000058398257466", "bic": "ESSESESS"}
ITEM: dict[str, Any] = {"counterparty": PAYEE, "amount": 5, "reference": "r"}


def test_the_split_does_not_depend_on_the_order() -> None:
    given = [{**ITEM, "amount": 1 + n % 700} for n in range(2500)]
    one = read_plan("a", given)
    random.Random(1).shuffle(given)
    other = read_plan("a", given)
    assert one.digest == other.digest
    assert [b.body("a") for b in one.batches("k")] == [b.body("a") for b in other.batches("k")]
    assert [len(b.items) for b in one.batches("k")] == [1000, 1000, 500]
    assert len({each for b in one.batches("k") for each in b.amounts}) == 2500


def test_a_digest_is_of_content_and_account() -> None:
    digest = read_plan("a", [ITEM]).digest
    assert read_plan("a", [{**ITEM, "amount": Decimal("0.05"), "currency": "EUR"}]).digest == digest
    assert read_plan("b", [ITEM]).digest != digest
    assert read_plan("a", [{**ITEM, "correlation_id": "i"}]).digest != digest
    assert read_plan("a", [ITEM, ITEM]).digest != digest


REFUSED: list[tuple[Any, str]] = [
    ([], "`items` is empty"),
    ({}, "`items` is a value of type dict"),
    ("x", "`items` is a value of type str"),
    ([5], "item 1 is a value of type int"),
    ([ITEM, {**ITEM, "amount": 1.5}], "item 2: amount is a float"),
    ([{**ITEM, "amount": 0}], "item 1: amount is zero"),
    ([{**ITEM, "amount": -5}], "item 1: amount is negative"),
    ([{**ITEM, "amount": None}], "item 1: amount is None"),
    ([{**ITEM, "amount": Decimal("1")}], "item 1: amount is a Decimal without a currency"),
    ([ITEM, {**ITEM, "currency": "SEK"}], "item 2 is in SEK"),
    ([{**ITEM, "counterparty": {"name": "A", "account_id": "b"}}], "item 1 has no IBAN and BIC"),
    ([{**ITEM, "counterparty": {**PAYEE, "iban": "SE46"}}], r"item 1: counterparty.iban is not valid"),
    ([{**ITEM, "reference": ""}], "item 1: reference is empty"),
    ([{**ITEM, "refrence": "x"}], "item 1 has the unknown field 'refrence'"),
    ([{**ITEM, "correlation_id": "i"}] * 2, r"more than one item has the same correlation_id \(repeated ids: 1\)"),
    (None, "`items` is None"),
    (17, "`items` is a value of type int"),
    ([{**ITEM, PAYEE["iban"]: 5}], "item 1 has the unknown field <not shown>"),
    ([{**ITEM, "currency": PAYEE["iban"]}], "item 1: currency is '<not shown>'"),
    ([ITEM] * 100_001, "holds 100001 items"),
]


@pytest.mark.parametrize(("given", "problem"), REFUSED)
def test_refused(given: Any, problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem) as caught:
        read_plan("a", given)
    assert "Nothing was sent" in str(caught.value)
    assert "SE45" not in str(caught.value)


def test_lines() -> None:
    assert list(read_lines([b'{"a": 1}\n', b"\n", '{"b": 2}'])) == [{"a": 1}, {"b": 2}]
    with pytest.raises(IntergiroValueError, match="line 2 is not JSON"):
        list(read_lines(["{}", "{"]))
    with pytest.raises(IntergiroValueError, match="line 1 is not JSON"):
        list(read_lines(["[" * 100_000]))
