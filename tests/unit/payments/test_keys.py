# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.keys import (
    PaymentIdentity,
    check_payment_key,
    check_scope,
    correlation_id,
    idempotency_key,
    record_name,
)

HERE = PaymentIdentity("dag", "task", "run")


def test_a_key_is_stable_from_release_to_release() -> None:
    assert idempotency_key("f", HERE) == "46c4a380-9c46-5f07-9956-4818961095f4"


@pytest.mark.parametrize(
    "change", [{"dag_id": "x"}, {"task_id": "x"}, {"run_id": "x"}, {"map_index": 0}, {"payment_key": "x"}]
)
def test_another_place_is_another_payment(change: dict[str, Any]) -> None:
    there = replace(HERE, **change)
    assert idempotency_key("f", HERE) != idempotency_key("f", there)
    assert record_name("o", "c", HERE) != record_name("o", "c", there)


@pytest.mark.parametrize(
    ("scope", "change", "same"),
    [
        ("run", {"task_id": "x", "map_index": 3}, True),
        ("run", {"run_id": "x"}, False),
        ("run", {"dag_id": "x"}, False),
        ("dag", {"run_id": "x"}, True),
        ("dag", {"dag_id": "x"}, False),
        ("ever", {"dag_id": "x", "run_id": "x", "task_id": "x"}, True),
        ("ever", {"payment_key": "j"}, False),
        ("ever", {"scope": "dag"}, False),
    ],
)
def test_scopes(scope: str, change: dict[str, Any], same: bool) -> None:
    here = replace(HERE, payment_key="i", scope=scope)
    assert (idempotency_key("f", here) == idempotency_key("f", replace(here, **change))) is same


def test_parts_do_not_run_into_each_other() -> None:
    assert idempotency_key("f", PaymentIdentity("a", "bc", "r")) != idempotency_key(
        "f", PaymentIdentity("ab", "c", "r")
    )


def test_another_company_has_another_key_and_a_new_api_key_the_same_record() -> None:
    assert idempotency_key("f", HERE) != idempotency_key("g", HERE)
    assert record_name("o", "c", HERE) != record_name("o", "d", HERE)


def test_correlation_ids_go_by_content() -> None:
    one, other = {"amount": 1, "name": "Ö"}, {"name": "Ö", "amount": 1}
    assert correlation_id("k", one, 0) == correlation_id("k", other, 0)
    assert len({correlation_id("k", one, 0), correlation_id("k", one, 1), correlation_id("l", one, 0)}) == 3
    assert uuid.UUID(correlation_id("k", one, 0)).version == 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("i", "week", "p"), "must be one of"),
        ((None, "dag", "p"), "without `payment_key`"),
        (("i", "ever", None), "without `record_path`"),
    ],
)
def test_scopes_that_cannot_be_kept(arguments: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem):
        check_scope(*arguments)


@pytest.mark.parametrize("value", ["", "  ", "None", "null", "NaN", True, 1.5, ["i"]])
def test_what_is_no_payment_key(value: Any) -> None:
    with pytest.raises(IntergiroValueError, match="payment_key"):
        check_payment_key(value)


@pytest.mark.parametrize(("value", "key"), [(None, None), (" i-1 ", "i-1"), (17, "17")])
def test_payment_keys(value: Any, key: str | None) -> None:
    assert check_payment_key(value) == key
