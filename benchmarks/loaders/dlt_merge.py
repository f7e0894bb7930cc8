# SPDX-License-Identifier: Apache-2.0
"""dlt: what lies in a directory, merged by id into PostgreSQL or DuckDB.

Loader formats and merge strategies are those that took the least CPU of all that work. JSON lines come as records, as
dlt's own reader yields them. Parquet comes as Arrow, which dlt passes on as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.pullers.clock import LoadJob, run

_ROWS = 50_000
_JSON = {"data_type": "json"}
_MOMENT = {"data_type": "timestamp"}
COLUMNS = {"counterparty": _JSON, "risk": _JSON, "created_at": _MOMENT, "updated_at": _MOMENT}


def prepare(job: LoadJob, lines: Callable[[Path], Iterator[Any]] | None = None, loader: str = "parquet") -> Any:
    """Make the pipeline; nothing of dlt's leaves this machine.

    :param lines: reads a file of JSON lines.
    """
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
        "DLT_DATA_DIR": job.state,
    }
    import dlt
    import pyarrow.parquet  # and all that dlt imports with it

    def rows() -> Iterator[Any]:
        for path in sorted(Path(job.path).glob("part-*")):
            if path.suffix == ".parquet":
                yield from pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS)
            else:
                yield from (lines or records)(path)

    if job.postgres:
        server = job.postgres
        url = (
            f"postgresql://{server['login']}:{server['password']}@{server['host']}:{server['port']}/{server['schema']}"
        )
        destination = dlt.destinations.postgres(url)
    else:
        destination = dlt.destinations.duckdb(job.database)
    pipeline = dlt.pipeline("benchmark", destination=destination, dataset_name=job.schema, pipelines_dir=job.state)
    columns = COLUMNS if job.postgres else None
    resource = dlt.resource(rows(), name="transactions", max_table_nesting=0, columns=columns, primary_key="id")
    merge = {"disposition": "merge", "strategy": "delete-insert"}
    return lambda: pipeline.run(resource, loader_file_format=loader, write_disposition=merge)


def records(path: Path) -> Iterator[Any]:
    """Yield blocks of records."""
    from dlt.common import json

    block: list[Any] = []
    with path.open("rb") as file:
        for line in file:
            block.append(json.loadb(line))
            if len(block) == 5000:
                yield block
                block = []
    yield block


if __name__ == "__main__":
    run(prepare, LoadJob)
