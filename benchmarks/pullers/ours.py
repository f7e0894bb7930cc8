# SPDX-License-Identifier: Apache-2.0
"""Our operator, by itself, with a session that lives."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from clock import Job, run


def prepare(job: Job) -> Callable[[], object]:
    """Import Airflow and what the operator imports when it runs, and log in."""
    os.environ["AIRFLOW_CONN_INTERGIRO_DEFAULT"] = job.connection

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.pull import pace, pull
    from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

    _ = pull
    if job.fixed:
        _fix(pace.Pace, job.windows)
    _ = ObjectStoragePath(f"file://{job.directory}").fs  # imports the file systems of every installed provider
    operator = IntergiroToObjectStorageOperator(
        task_id="pull",
        endpoint="transactions",
        path=f"file://{job.directory}",
        created_from=job.created_from,
        created_to=job.created_to,
        file_format=job.file_format,
        max_parallel_windows=job.windows,
    )
    IntergiroHook().run("accounts")
    return lambda: operator.execute({})


def _fix(kind: Any, limit: int) -> None:
    """Let each pull begin with this limit, and keep it."""
    begin = kind.__init__

    def begin_high(pace: Any, *arguments: Any, **named: Any) -> None:
        begin(pace, *arguments, **named)
        pace.limit = limit

    kind.__init__, kind._learn = begin_high, lambda *_: False


if __name__ == "__main__":
    run(prepare)
