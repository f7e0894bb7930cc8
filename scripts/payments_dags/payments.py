# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the payments campaign: mapped payments at banks of every kind, bulk payments, and consents."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator, IntergiroPaymentOperator
from scripts.payments_dags.kills import record_failure, schedule_kill
from scripts.payments_plan import BULKS, MODES, SETTLE, amount, payee, reference

RECORDS = "{{ var.value.records }}"


def campaign_dag(name: str) -> DAG:
    """Return a DAG whose tasks are killed and retried."""
    return DAG(
        name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        max_active_runs=1,
        max_active_tasks=1000,
        params={"first": 0, "count": 10},
        user_defined_macros={"amount": amount, "payee": payee, "reference": reference},
        default_args={
            "retries": 5,
            "retry_delay": timedelta(seconds=1),
            "pre_execute": schedule_kill,
            "on_failure_callback": record_failure,
        },
    )


def pay(task_id: str, group: str, conn_id: str, key: str = "task.payment_key", **more: Any) -> Any:
    """Return a payment operator, to be expanded.

    :param group: the beginning of the references.
    :param key: a template expression with another value for each payment.
    """
    return IntergiroPaymentOperator.partial(
        task_id=task_id,
        operation="pay",
        account_id="{{ var.value.account }}",
        amount=f"{{{{ amount({key}) }}}}",
        reference=f"{{{{ reference('{group}', {key}) }}}}",
        counterparty=f"{{{{ payee({key}) | tojson }}}}",
        settle=SETTLE,
        intergiro_conn_id=conn_id,
        **more,
    )


@task(pre_execute=None)
def invoices(part: str, parts: int, params: Any = None, ti: Any = None) -> list[str]:
    """Return the invoices to pay, in another order in each try."""
    numbers = [n for n in range(params["first"], params["first"] + params["count"]) if n % parts == int(part)]
    random.Random(ti.try_number).shuffle(numbers)  # noqa: S311
    return [f"invoice-{number}" for number in numbers]


for mode in MODES:
    with campaign_dag(mode.name):
        trusted: dict[str, Any] = {"key_trusted_for": mode.trusted_for}
        parts = 1 if mode.trusted_for <= SETTLE else 2
        keys = invoices.override(task_id="to_record")("0", parts)
        pay("with_record", mode.name, mode.name, record_path=RECORDS, **trusted).expand(payment_key=keys)
        if parts == 2:
            keys = invoices.override(task_id="not_to_record")("1", parts)
            pay("without_record", mode.name, mode.name, **trusted).expand(payment_key=keys)

with campaign_dag("reordered"):
    keys = invoices.override(task_id="to_record")("0", 2)
    pay("with_record", "reordered", "mapped", record_path=RECORDS).expand(payment_key=keys)
    pay("refused", "refused", "mapped", "ti.map_index").expand(approved_by=keys)
    keys = invoices.override(task_id="not_to_record")("1", 2)
    pay("without_record", "reordered", "mapped").expand(payment_key=keys)

for name in ("twin_a", "twin_b"):
    with campaign_dag(name):
        literal = [f"invoice-{number}" for number in range(10)]
        pay("by_key", "twin key", "mapped").expand(payment_key=literal)
        pay("by_place", "twin place", "mapped", "ti.map_index").expand(approved_by=literal)
        pay("ever", "twin ever", "mapped", payment_scope="ever", record_path=RECORDS).expand(payment_key=literal)

with campaign_dag("consents"):
    literal = [f"invoice-{number}" for number in range(6)]
    pay(
        "pay", "consents", "consents", record_path=RECORDS, wait_for_consent=True, consent_poll_interval=2.0,
        priority_weight=100,
    ).expand(payment_key=literal)  # fmt: skip

for bulk in BULKS:
    with campaign_dag(bulk.name):
        IntergiroBulkPaymentOperator(
            task_id="pay",
            account_id="{{ var.value.account_2d }}",
            items=f"{{{{ var.value.items }}}}/{bulk.name}.jsonl",
            record_path=RECORDS,
            settle=SETTLE,
            resend_after=bulk.resend_after,
            retries=8,
            intergiro_conn_id=bulk.name,
        )
