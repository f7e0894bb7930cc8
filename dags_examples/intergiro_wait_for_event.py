# SPDX-License-Identifier: Apache-2.0
"""Wait until the bank has a completed transaction of yesterday or later.

The sensor uses no worker slot while it waits: the triggerer polls. The query describes the record, so the ready-made
check `has_records` is enough. The triggerer must be able to import a check of your own, from an installed package, the
plugins folder or the PYTHONPATH. Without `deferrable` it may be any function.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import dag, task

from intergiro_provider.sensors.intergiro import IntergiroSensor


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"status": "completed"},
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_wait_for_event() -> None:
    wait = IntergiroSensor(
        task_id="wait",
        endpoint="transactions",
        query={
            "statuses": "{{ params.status }}",
            "created_from": "{{ macros.ds_add(dag_run.start_date | ds, -1) }}T00:00:00Z",
            "limit": 1,
        },
        response_check="intergiro_provider.sensors.checks.has_records",
        deferrable=True,
        poke_interval=timedelta(minutes=1),
        timeout=timedelta(hours=12),
    )

    @task
    def go_on() -> str:
        """Run when the transaction exists."""
        return "there it is"

    wait >> go_on()


intergiro_wait_for_event()
