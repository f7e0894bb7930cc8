# SPDX-License-Identifier: Apache-2.0
"""Pull what is new since the last run, every hour, with a watermark in the asset's state (Airflow 3.3 and later).

Each run begins where the last successful run ended. So the next run also pulls the records of a failed or skipped run.
The first run begins at `created_from`. Each run has its own directory. A cleared run pulls its own interval again.
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
        max_active_runs=1,  # otherwise two runs could begin at the same watermark
        default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
        tags=["intergiro", "example"],
        doc_md=__doc__,
    )
    def intergiro_increments() -> None:
        IntergiroToObjectStorageOperator(
            task_id="pull",
            endpoint="transactions",
            created_from="2024-01-01",
            # The bank's list may still lack records that are younger than five minutes.
            created_to="{{ dag_run.run_after - macros.timedelta(minutes=5) }}",
            watermark=TRANSACTIONS,
            outlets=[TRANSACTIONS],
            path=TARGET + "/increments/{{ dag_run.run_after | ts_nodash }}",
            compression="gzip",
        )

    intergiro_increments()
