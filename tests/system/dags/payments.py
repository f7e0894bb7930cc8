# SPDX-License-Identifier: Apache-2.0
"""DAGs that pay: one waits for a person's consent, one is retried after the API key has changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.operators.payments import IntergiroPaymentOperator

START = datetime(2026, 1, 1, tzinfo=UTC)


@dag(schedule=None, start_date=START)
def consent() -> None:
    IntergiroPaymentOperator(
        task_id="pay", operation="pay", account_id="{{ var.value.intergiro_paying_account }}", amount=125_00,
        reference="{{ var.value.ref }}",
        counterparty="{{ var.value.intergiro_payee }}", record_path="{{ var.value.records }}", wait_for_consent=True,
        consent_poll_interval=1.0,
    )  # fmt: skip


@dag(schedule=None, start_date=START)
def new_key() -> None:
    IntergiroPaymentOperator(
        task_id="pay", operation="move", account_id="{{ var.value.intergiro_paying_account }}", amount=7_00,
        reference="{{ var.value.ref }}", target_account_id="{{ var.value.other }}", intergiro_conn_id="rotated",
        retries=1, retry_delay=timedelta(seconds=5),
    )  # fmt: skip


consent()
new_key()
