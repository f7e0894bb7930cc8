# SPDX-License-Identifier: Apache-2.0
"""Pull the transactions of the previous day every night, and a few smaller lists as a whole.

Each pull writes compressed JSON lines and a `_manifest.json` to the directory `<target>/<list>/day=<day>/`. The
environment variable INTERGIRO_EXAMPLE_TARGET sets the target, an ObjectStoragePath URL such as
`s3://aws_default@lake/intergiro`. The default is a directory in AIRFLOW_HOME, for a single machine.

When all pulls of the night have succeeded, the DAG emits an asset `intergiro://<list>` for each list, with its number
of rows. Schedule the DAGs that read the files on these assets.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import Asset, dag, task

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 2.11
    from airflow.timetables.interval import CronDataIntervalTimetable  # type: ignore[assignment]

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"

BY_DAY = ["transactions"]  # lists with filters for a time interval
WHOLE = ["accounts", "cards", "individuals"]
ASSETS = {name: Asset(f"intergiro://{name}") for name in BY_DAY + WHOLE}


@dag(
    # Not "@daily", nor the cron expression itself: in Airflow 3 their data intervals are empty.
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_nightly() -> None:
    @task
    def plan(data_interval_end: datetime | None = None, dag_run: Any = None) -> list[dict[str, Any]]:
        """Return one pull per list. The day is the last one that had ended, in UTC, when the run became due."""
        due = data_interval_end or dag_run.run_after  # in Airflow 3 a manual run may have no interval
        end = due.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = end - timedelta(days=1)
        directory = f"day={start:%Y-%m-%d}"
        bounds = {"created_from": start.isoformat(), "created_to": end.isoformat()}
        return [
            *({"endpoint": name, "path": f"{TARGET}/{name}/{directory}", **bounds} for name in BY_DAY),
            *({"endpoint": name, "path": f"{TARGET}/{name}/{directory}"} for name in WHOLE),
        ]

    pull = IntergiroToObjectStorageOperator.partial(
        task_id="pull",
        compression="gzip",
        execution_timeout=timedelta(hours=2),
        map_index_template="{{ task.endpoint }}",
    ).expand_kwargs(plan())

    @task(outlets=list(ASSETS.values()))
    def announce(manifests: Any, outlet_events: Any = None) -> dict[str, int]:
        """Report the number of rows to the DAGs that wait for the assets."""
        for manifest in manifests:
            event = outlet_events[ASSETS[manifest["endpoint"]]]
            event.extra = {"rows": manifest["rows"], "pull_id": manifest["pull_id"]}
        return {manifest["endpoint"]: manifest["rows"] for manifest in manifests}

    announce(pull.output)


intergiro_nightly()
