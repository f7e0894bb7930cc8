# SPDX-License-Identifier: Apache-2.0
"""Tasks with the most common failures."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.operators.intergiro import IntergiroOperator


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def failures() -> None:
    """A wrong key, a bank that cannot be reached, and a payment that the bank refuses."""
    IntergiroOperator(task_id="wrong_key", endpoint="accounts", intergiro_conn_id="wrong_key")
    IntergiroOperator(
        task_id="unreachable_bank",
        endpoint="accounts",
        intergiro_conn_id="unreachable_bank",
        extra_options={"retry": False},
    )
    IntergiroOperator(
        task_id="refused_payment",
        endpoint="transactions/pay",
        method="POST",
        json={
            "request_id": "9d4f5b2a-5a3e-4b63-9a3c-0d1a6f6b7c11",
            "account_id": "nosuch",
            "amount": 125_00,
            "reference": "Rent for November",
            "counterparty": {"name": "Ada Lovelace", "account": {"iban": "SE4550000000058398257466", "bic": "X"}},
        },
    )


failures()
