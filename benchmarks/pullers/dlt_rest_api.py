# SPDX-License-Identifier: Apache-2.0
"""dlt's rest_api source in a pipeline to local JSON lines: extract, normalise, load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from clock import Job, run


def prepare(job: Job) -> Callable[[], object]:
    """Make source and pipeline; nothing of dlt's leaves this machine."""
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
        "DESTINATION__FILESYSTEM__BUCKET_URL": Path(job.directory, "out").as_uri(),
        "DLT_DATA_DIR": str(Path(job.directory, ".dlt")),
    }
    import dlt
    from dlt.sources.rest_api import rest_api_source
    from paginator import LastId

    source = rest_api_source(
        {
            "client": {"base_url": job.url, "headers": job.headers, "paginator": LastId()},
            "resources": [
                {
                    "name": "transactions",
                    "max_table_nesting": 0,
                    "endpoint": {"path": "v3/transactions", "params": job.query, "data_selector": "data"},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        "benchmark", destination="filesystem", dataset_name="rows", pipelines_dir=str(Path(job.directory, ".pipelines"))
    )
    return lambda: pipeline.run(source, loader_file_format="jsonl")


if __name__ == "__main__":
    run(prepare)
