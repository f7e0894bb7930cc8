# SPDX-License-Identifier: Apache-2.0
"""Load accounts and transactions into a DuckDB file, and compare the balances with the transactions.

Each run pulls the last days again, because the status of a transaction may still change, and loads new and changed
records. From the second run on, each balance must have changed by the sum of the booked transactions.
The environment variable INTERGIRO_EXAMPLE_DATABASE names the file, INTERGIRO_EXAMPLE_TARGET the directory of the pulls.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator

AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
TARGET = os.environ.get("INTERGIRO_EXAMPLE_TARGET") or f"file://{AIRFLOW_HOME}/intergiro"
DATABASE = os.environ.get("INTERGIRO_EXAMPLE_DATABASE") or f"{AIRFLOW_HOME}/intergiro.duckdb"
REPORT = f"{TARGET}/reconciliation.html"


@dag(
    schedule="30 2 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # DuckDB allows one writer
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_to_duckdb() -> None:
    pull_accounts = IntergiroToObjectStorageOperator(
        task_id="pull_accounts", endpoint="accounts", path=f"{TARGET}/duckdb/accounts"
    )
    load_accounts = IntergiroToSqlOperator(
        task_id="load_accounts", path=f"{TARGET}/duckdb/accounts", table="accounts", database=DATABASE, history=True
    )

    @task(multiple_outputs=True)
    def interval() -> dict[str, str]:
        """Return the last days up to now, after the balances were pulled, so that no booked transaction is missing."""
        now = datetime.now(UTC)
        return {"created_from": (now - timedelta(days=10)).isoformat(), "created_to": now.isoformat()}

    bounds: Any = interval()
    pull = IntergiroToObjectStorageOperator(
        task_id="pull_transactions",
        endpoint="transactions",
        created_from=bounds["created_from"],
        created_to=bounds["created_to"],
        path=f"{TARGET}/duckdb/transactions",
        file_format="parquet",
        compression="zstd",
    )
    load = IntergiroToSqlOperator(
        task_id="load_transactions",
        path=f"{TARGET}/duckdb/transactions",
        table="transactions",
        database=DATABASE,
        history=True,
    )

    @task
    def compare() -> dict[str, Any]:
        """Fail if a balance and the transactions do not agree to the cent."""
        from intergiro_provider.load.reconcile import reconcile

        return reconcile(database=DATABASE, report_path=REPORT)

    pull_accounts >> load_accounts >> bounds
    pull >> load >> compare()


intergiro_to_duckdb()
