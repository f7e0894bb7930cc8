# SPDX-License-Identifier: Apache-2.0
"""Mapped payments whose items have another order after a clear: each is paid once, or refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.sandbox import Sandbox
from tests.integration.payments.support import context, made, pay
from tests.integration.pulls import bank, shared_bank

pytestmark = pytest.mark.integration

__all__ = ["bank", "shared_bank"]  # fixtures


@pytest.fixture(autouse=True)
def empty(bank: Sandbox) -> None:
    bank.set(seed=bank.settings()["seed"])


def expanded(bank: Sandbox, invoices: list[str], fail: str = "", **arguments: Any) -> None:
    """Run one task for each invoice.

    :param fail: the invoice whose request the bank refuses with 429.
    """
    for index, invoice in enumerate(invoices):
        if invoice == fail:
            bank.fault("status", path="/v3/transactions/pay", status=429, times=1)
        try:
            pay(bank, context(index=index, task="each"), reference=invoice, payment_key=invoice, **arguments)
        except x.IntergiroRateLimited:
            assert invoice == fail


@pytest.mark.parametrize("with_record", [False, True])
def test_a_reordered_expand_pays_each_once(bank: Sandbox, tmp_path: Path, with_record: bool) -> None:
    extra = {"record_path": f"file://{tmp_path}"} if with_record else {}
    expanded(bank, ["A", "B", "C"], fail="B", **extra)
    expanded(bank, ["B", "C", "A", "D"], **extra)  # the upstream task was cleared
    paid = Counter({name: len(made(bank, name)) for name in "ABCD"})
    assert paid == Counter("ABCD")


def test_without_a_payment_key_items_of_another_task_are_refused(bank: Sandbox) -> None:
    with pytest.raises(x.IntergiroValueError, match=r"has no `payment_key`.*another order"):
        pay(bank, context(index=0))
    assert not made(bank)


def test_two_dags_with_one_run_id_pay_for_themselves(bank: Sandbox) -> None:
    ids = {pay(bank, context(dag=dag, run="manual__1"))["payment_id"] for dag in ("one", "other")}
    assert {t["id"] for t in made(bank)} == ids
    assert len(ids) == 2
