# SPDX-License-Identifier: Apache-2.0
"""Plan a payment, have a person approve it in Airflow, then pay it (Airflow 3.1 and later; no DAG on older ones).

`plan` sends nothing. `approve` waits in Airflow's list "Required Actions". `pay` makes the payment that was approved:
if the amount, the account, the reference or the payee has changed meanwhile, it fails and pays nothing. If the person
rejects the plan, `pay` is skipped. Start the DAG by hand, or give it a schedule.

The Variable `intergiro_paying_account` holds the id of the account that pays, and `intergiro_payee` the payee:
{"name": ..., "iban": ..., "bic": ...}.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow import __version__
from airflow.providers.common.compat.sdk import dag

from intergiro_provider.operators.payments import IntergiroPaymentOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"

PAYMENT: dict[str, Any] = {
    "operation": "pay",
    "account_id": "{{ var.value.intergiro_paying_account }}",
    "amount": 100_00,  # cents
    "currency": "EUR",
    "reference": "Membership fee",
    "counterparty": "{{ var.json.intergiro_payee | tojson }}",
    "record_path": f"{TARGET}/payments",
}

if tuple(map(int, __version__.split(".")[:2])) >= (3, 1):
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    @dag(
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        tags=["intergiro", "example"],
        doc_md=__doc__,
    )
    def intergiro_pay_approved() -> None:
        plan = IntergiroPaymentOperator(task_id="plan", dry_run=True, **PAYMENT)
        approve = ApprovalOperator(
            task_id="approve",
            subject="Pay the membership fee?",
            body="{{ ti.xcom_pull('plan')['count'] }} payment, {{ ti.xcom_pull('plan')['totals'] }} cents",
        )
        pay = IntergiroPaymentOperator(
            task_id="pay",
            approved_plan="{{ ti.xcom_pull('plan')['sha256'] }}",
            approved_by="{{ ti.xcom_pull('approve')['responded_by_user'] }}",
            retries=3,
            **PAYMENT,
        )
        plan >> approve >> pay

    intergiro_pay_approved()
