# SPDX-License-Identifier: Apache-2.0
"""Our operator: what a pull's manifest names, into PostgreSQL or DuckDB."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from benchmarks.pullers.clock import LoadJob, run


def prepare(job: LoadJob) -> Callable[[], object]:
    """Import Airflow and what the operator imports when it runs."""
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(job.postgres)

    import iso4217
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from intergiro_provider.load import open_warehouse, source, steps
    from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator

    _ = (
        iso4217,
        source,
        steps,
        ObjectStoragePath(f"file://{job.path}").fs,
    )  # imports the file systems of every installed provider
    where = {"sql_conn_id": "warehouse"} if job.postgres else {"database": job.database}
    open_warehouse(job.table, **where)
    operator = IntergiroToSqlOperator(task_id="load", path=f"file://{job.path}", table=job.table, **where)
    return lambda: operator.execute({})


if __name__ == "__main__":
    run(prepare, LoadJob)
