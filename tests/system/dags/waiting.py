# SPDX-License-Identifier: Apache-2.0
"""A deferred sensor that waits for a transaction with the correlation id in the run's parameter `batch`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.sensors.intergiro import IntergiroSensor


@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False, params={"batch": "?"})
def waiting() -> None:
    IntergiroSensor(
        task_id="wait",
        endpoint="transactions",
        query={"correlation_ids": "{{ params.batch }}", "limit": 1},
        response_check="intergiro_provider.sensors.checks.has_records",
        deferrable=True,
        poke_interval=1,
        timeout=timedelta(minutes=10),
        retries=3,
        retry_delay=timedelta(0),
    )


waiting()
