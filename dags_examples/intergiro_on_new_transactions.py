# SPDX-License-Identifier: Apache-2.0
"""Start a run when the bank has new transactions, and pull only those (Airflow 3; no DAG on Airflow 2).

The trigger polls once a minute. On Airflow 3.3 and later it keeps its position over restarts. An event holds only ids
and an interval. Events that arrive during a run start the next run together.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger

try:
    from airflow.sdk import AssetWatcher
except ImportError:  # Airflow 2 has no event-driven DAGs
    AssetWatcher = None  # type: ignore[assignment, misc]

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"

if AssetWatcher is not None:
    trigger = IntergiroEventTrigger(endpoint="transactions", poll_interval=60)
    NEW = Asset("intergiro_new_transactions", watchers=[AssetWatcher(name="intergiro_transactions", trigger=trigger)])

    @dag(
        schedule=[NEW],
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 3},
        tags=["intergiro", "example"],
        doc_md=__doc__,
    )
    def intergiro_on_new_transactions() -> None:
        @task(multiple_outputs=True)
        def interval(triggering_asset_events: Any = None, dag_run: Any = None) -> dict[str, str]:
            """Return the interval in which all new records were created. In a manual run: the last day."""
            found = triggering_asset_events[NEW] if triggering_asset_events else ()
            extras = [event.extra for event in found]
            events = [extra["payload"] for extra in extras if "payload" in extra]  # an event created by a user has none
            if not events:
                now = dag_run.run_after.astimezone(UTC)
                return {"created_from": (now - timedelta(days=1)).isoformat(), "created_to": now.isoformat()}
            return {
                "created_from": min(event["created_from"] for event in events),
                "created_to": max(event["created_to"] for event in events),
            }

        bounds: Any = interval()
        IntergiroToObjectStorageOperator(
            task_id="pull",
            endpoint="transactions",
            path=TARGET + "/new_transactions/{{ dag_run.run_after | ts_nodash }}",
            created_from=bounds["created_from"],
            created_to=bounds["created_to"],
        )

    intergiro_on_new_transactions()
