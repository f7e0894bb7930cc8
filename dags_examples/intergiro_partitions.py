# SPDX-License-Identifier: Apache-2.0
"""Pull one partition per day, by the partition key of the run (Airflow 3.2 and later).

The key is the day that the run pulls, in scheduled runs and in backfills. The asset event carries the key, so the DAGs
that read the asset can use the same partitions. A manual run uses the key that you enter; without a key it pulls the
day before.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow import __version__
from airflow.providers.common.compat.sdk import Asset, dag

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"

DAY = "(dag_run.partition_key or macros.ds_add(dag_run.run_after | ds, -1))"

if tuple(map(int, __version__.split(".")[:2])) >= (3, 2):
    from airflow.sdk import CronPartitionTimetable

    @dag(
        # At two in the morning, for the day before.
        schedule=CronPartitionTimetable("0 2 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
        tags=["intergiro", "example"],
        doc_md=__doc__,
    )
    def intergiro_partitions() -> None:
        IntergiroToObjectStorageOperator(
            task_id="pull",
            endpoint="transactions",
            created_from=f"{{{{ {DAY} }}}}",
            created_to=f"{{{{ macros.ds_add({DAY}, 1) }}}}",
            path=f"{TARGET}/partitions/{{{{ {DAY} }}}}",
            compression="gzip",
            outlets=[Asset("intergiro_transactions_by_day")],
        )

    intergiro_partitions()
