# SPDX-License-Identifier: Apache-2.0
"""Airflow's HttpOperator with a `pagination_function`; bodies written as they came, once all are there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from clock import Job, run


def prepare(job: Job) -> Callable[[], object]:
    """Import Airflow and make the operator; the bearer is in the connection's extra, sent as headers."""
    os.environ["AIRFLOW_CONN_BANK"] = json.dumps({"conn_type": "http", "host": job.url, "extra": job.headers})

    from airflow.providers.http.operators.http import HttpOperator

    def next_page(response: Any) -> dict[str, Any] | None:
        page = response.json()
        if not page["has_more"]:
            return None
        return {"data": {**job.query, "starting_after": page["data"][-1]["id"]}}

    def write(responses: list[Any]) -> int:
        with job.file().open("wb") as out:
            out.writelines(response.content + b"\n" for response in responses)
        return len(responses)

    operator = HttpOperator(
        task_id="pull",
        http_conn_id="bank",
        endpoint="v3/transactions",
        method="GET",
        data=job.query,
        pagination_function=next_page,
        response_filter=write,
    )
    operator.hook.get_conn()
    return lambda: operator.execute({})


if __name__ == "__main__":
    run(prepare)
