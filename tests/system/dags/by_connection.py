# SPDX-License-Identifier: Apache-2.0
"""One request through the connection in the run's parameter `conn_id`."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.operators.intergiro import IntergiroOperator


@dag(schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False, params={"conn_id": ""})
def by_connection() -> None:
    IntergiroOperator(
        task_id="accounts",
        endpoint="accounts",
        query={"limit": 100},
        response_filter=lambda response: {"url": response.url, "rows": len(response.json()["data"])},
        intergiro_conn_id="{{ params.conn_id }}",
    )


by_connection()
