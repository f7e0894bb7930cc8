# SPDX-License-Identifier: Apache-2.0
"""A pull that takes long enough to be killed, and is retried at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator


@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False, params={"target": ""})
def long_pull() -> None:
    IntergiroToObjectStorageOperator(
        task_id="pull",
        endpoint="transactions",
        query={"limit": 10},
        created_from="2000-01-01",
        created_to="2100-01-01",
        max_parallel_windows=2,
        path="{{ params.target }}",
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


long_pull()
