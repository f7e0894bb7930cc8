# SPDX-License-Identifier: Apache-2.0
"""Airflow's HttpHook in a loop, as a task of one's own would do it; bodies written as they came."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from clock import Job, run


def prepare(job: Job) -> Callable[[], None]:
    """Import Airflow and make the hook; the bearer is in the connection's extra, which HttpHook sends as headers."""
    os.environ["AIRFLOW_CONN_BANK"] = json.dumps({"conn_type": "http", "host": job.url, "extra": job.headers})

    from airflow.providers.http.hooks.http import HttpHook

    hook = HttpHook(method="GET", http_conn_id="bank")
    hook.get_conn()

    def pull() -> None:
        query = job.query
        with job.file().open("wb") as out:
            while True:
                response = hook.run("v3/transactions", data=query)
                page = response.json()
                out.write(response.content + b"\n")
                if not page["has_more"]:
                    return
                query["starting_after"] = page["data"][-1]["id"]

    return pull


if __name__ == "__main__":
    run(prepare)
