# SPDX-License-Identifier: Apache-2.0
"""Pull the previous day with a plain `@daily` schedule, on Airflow 2 and 3, in scheduled and manual runs.

With such a schedule, the data interval is empty in Airflow 3, and the previous day in Airflow 2. Both end at the
midnight at which the run is due, so the DAG computes the bounds from this end. Each run also pulls the days of
`lookback` again. Set it to the time in which the status of a transaction can change.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"

# Not only data_interval_end: in Airflow 3 a manual run may have no interval, and then the name is undefined.
TODAY = "(dag_run.data_interval_end or dag_run.run_after) | ds"
YESTERDAY = f"macros.ds_add({TODAY}, -1)"


@dag(
    schedule="@daily",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_daily() -> None:
    IntergiroToObjectStorageOperator(
        task_id="pull",
        endpoint="transactions",
        created_from=f"{{{{ {YESTERDAY} }}}}",
        created_to=f"{{{{ {TODAY} }}}}",
        lookback=timedelta(days=2),
        path=f"{TARGET}/daily/{{{{ {YESTERDAY} }}}}",
        compression="gzip",
        execution_timeout=timedelta(hours=2),
    )


intergiro_daily()
