# SPDX-License-Identifier: Apache-2.0
"""DAGs that pay: one waits for a person's consent, one for a person's approval of its plan."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag
from airflow.providers.standard.operators.hitl import ApprovalOperator

from intergiro_provider.operators.payments import IntergiroPaymentOperator

START = datetime(2026, 1, 1, tzinfo=UTC)


@dag(schedule=None, start_date=START)
def consent() -> None:
    IntergiroPaymentOperator(
        task_id="pay", operation="pay", account_id="{{ var.value.account }}", amount=125_00,
        reference="{{ var.value.ref }}",
        counterparty="{{ var.value.payee }}", record_path="{{ var.value.records }}", wait_for_consent=True,
        consent_poll_interval=1.0,
    )  # fmt: skip


@dag(schedule=None, start_date=START)
def approval() -> None:
    move = {
        "operation": "move", "account_id": "{{ var.value.account }}", "amount": 5_00,
        "reference": "{{ var.value.ref }}",
        "target_account_id": "{{ var.value.other }}",
    }  # fmt: skip
    plan = IntergiroPaymentOperator(task_id="plan", dry_run=True, **move)  # type: ignore[arg-type]
    approve = ApprovalOperator(
        task_id="approve",
        subject="Move the money?",
        body="{{ ti.xcom_pull('plan')['count'] }} payment, {{ ti.xcom_pull('plan')['totals'] }} cents",
    )
    pay = IntergiroPaymentOperator(
        task_id="pay", approved_plan="{{ ti.xcom_pull('plan')['sha256'] }}",
        approved_by="{{ ti.xcom_pull('approve')['responded_by_user'] }}", **move,  # type: ignore[arg-type]
    )  # fmt: skip
    plan >> approve >> pay


consent()
approval()
