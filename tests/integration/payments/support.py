# SPDX-License-Identifier: Apache-2.0
"""Helpers for the tests of payments: a context of Airflow, accounts, and the bank's transactions."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from intergiro_provider.operators.payments import IntergiroPaymentOperator
from intergiro_provider.sandbox import Sandbox

IBAN, BIC, NAME = "SE4550000000058398257466", "ESSESESS", "Åsa Öberg"
PAYEE = {"name": NAME, "iban": IBAN, "bic": BIC}


def context(dag: str = "rents", task: str = "pay", run: str = "r1", index: int = -1, **other: Any) -> Any:
    """Return the part of Airflow's context that the operators use.

    :param other: `try_number`, `max_tries`; `started`, the start of the run; `dag_object`.
    """
    ti = SimpleNamespace(
        dag_id=dag, task_id=task, run_id=run, map_index=index,
        try_number=other.get("try_number", 1), max_tries=other.get("max_tries", 0), xcom_push=lambda **given: None,
    )  # fmt: skip
    started = other.get("started", datetime.now(UTC))
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=started, clear_number=0), "dag": other.get("dag_object")}


def account(bank: Sandbox, api: str = "v3", currency: str = "EUR", number: int = 0) -> str:
    """Return the id of an account with this currency.

    :param number: 0 for the first of these accounts.
    """
    accounts = [a for a in map(json.loads, bank.records(f"/{api}/accounts")) if a["currency"] == currency]
    return str(accounts[number]["id"])


def change_api_key(bank: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an API key at the bank, and replace the connection's key by it."""
    other = str(uuid.uuid4())
    bank.set(api_keys=[*bank.settings()["api_keys"], other])
    uri = bank.connection(max_logins_per_hour=400).replace(bank.api_key, other)
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", uri)


def pay(bank: Sandbox, where: Any = None, **arguments: Any) -> dict[str, Any]:
    """Execute the operator, and return its result.

    :param where: the context; None: a new one.
    """
    given = {
        "task_id": "pay", "operation": "pay", "account_id": account(bank), "amount": 125_00, "reference": "Rent",
        "counterparty": PAYEE, **arguments,
    }  # fmt: skip
    if given["operation"] == "move" and "counterparty" not in arguments:
        del given["counterparty"]
    return IntergiroPaymentOperator(**given).execute(where or context())


def made(bank: Sandbox, reference: str = "Rent", api: str = "v3") -> list[dict[str, Any]]:
    """Return the outgoing transactions with this reference."""
    return [
        t for t in map(json.loads, bank.records(f"/{api}/transactions"))
        if t["reference"] == reference and t["amount"] < 0
    ]  # fmt: skip
