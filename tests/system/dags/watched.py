# SPDX-License-Identifier: Apache-2.0
"""A DAG that new records start, and a task that the bank asks to wait (429)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger

START = datetime(2024, 1, 1, tzinfo=UTC)

completed = Asset(
    "completed_transactions",
    watchers=[
        AssetWatcher(
            name="poll",
            trigger=IntergiroEventTrigger(endpoint="transactions", query={"statuses": "completed"}, poll_interval=1),
        )
    ],
)


@dag(schedule=[completed], start_date=START, catchup=False)
def watched() -> None:
    @task
    def told(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        return [event.extra["payload"] for event in triggering_asset_events[completed]]

    told()


watched()


@dag(schedule=None, start_date=START, catchup=False)
def put_off() -> None:
    IntergiroOperator(task_id="call", endpoint="accounts", retries=1, retry_delay=timedelta(hours=5))


put_off()
