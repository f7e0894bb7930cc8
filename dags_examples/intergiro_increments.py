# SPDX-License-Identifier: Apache-2.0
"""What is new since the last run, every hour: from Airflow 3.3 on, which keeps a watermark with the asset.

Each run begins where the last one that succeeded had ended: the next one makes up for a run that was left out or
failed for good. The first begins at `created_from`. Each has a directory of its own; a run that is cleared pulls its
own interval again.
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

TRANSACTIONS = Asset("intergiro_transactions_by_hour")

if tuple(map(int, __version__.split(".")[:2])) >= (3, 3):

    @dag(
        schedule="@hourly",
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,  # or two runs could begin at one watermark
        default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
        tags=["intergiro", "example"],
        doc_md=__doc__,
    )
    def intergiro_increments() -> None:
        IntergiroToObjectStorageOperator(
            task_id="pull",
            endpoint="transactions",
            created_from="2024-01-01",
            # What is younger than five minutes may still be missing from the bank's list.
            created_to="{{ dag_run.run_after - macros.timedelta(minutes=5) }}",
            watermark=TRANSACTIONS,
            outlets=[TRANSACTIONS],
            path=TARGET + "/increments/{{ dag_run.run_after | ts_nodash }}",
            compression="gzip",
        )

    intergiro_increments()
