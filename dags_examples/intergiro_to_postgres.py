# SPDX-License-Identifier: Apache-2.0
"""Load the transactions of the last four days into a table of PostgreSQL, every night.

Rows whose status has changed are updated, others stay unchanged, and a rerun writes nothing. The Airflow connection
`warehouse`, of type `postgres`, names the database; INTERGIRO_EXAMPLE_SQL_CONN_ID names another connection.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import dag

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"
WAREHOUSE = os.environ.get("INTERGIRO_EXAMPLE_SQL_CONN_ID") or "warehouse"

# In Airflow 3 a manual run may have no data interval.
TODAY = "(dag_run.data_interval_end or dag_run.run_after) | ds"
YESTERDAY = f"macros.ds_add({TODAY}, -1)"
PATH = f"{TARGET}/postgres/{{{{ {YESTERDAY} }}}}"


@dag(
    schedule="@daily",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_to_postgres() -> None:
    pull = IntergiroToObjectStorageOperator(
        task_id="pull",
        endpoint="transactions",
        created_from=f"{{{{ {YESTERDAY} }}}}",
        created_to=f"{{{{ {TODAY} }}}}",
        lookback=timedelta(days=3),
        path=PATH,
        compression="gzip",
    )
    load = IntergiroToSqlOperator(task_id="load", path=PATH, table="transactions", sql_conn_id=WAREHOUSE, history=True)
    pull >> load


intergiro_to_postgres()
