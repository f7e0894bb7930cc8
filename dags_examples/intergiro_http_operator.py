# SPDX-License-Identifier: Apache-2.0
"""Airflow's own HttpOperator on an Intergiro connection, page after page.

It holds all pages in memory, and opens a connection for each. For lists of any length there is
IntergiroToObjectStorageOperator. Leave `deferrable` off: that builds a hook that knows nothing of Intergiro's session.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import dag
from airflow.providers.http.operators.http import HttpOperator

if TYPE_CHECKING:
    import requests


def next_page(response: requests.Response) -> dict[str, Any] | None:
    """How to ask for the page after this one; None after the last."""
    page = response.json()
    return {"data": {"starting_after": page["data"][-1]["id"]}} if page["has_more"] else None


def count(responses: list[requests.Response]) -> int:
    """What becomes the task's result."""
    return sum(len(response.json()["data"]) for response in responses)


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_http_operator() -> None:
    HttpOperator(
        task_id="individuals",
        http_conn_id="intergiro_default",
        endpoint="individuals",
        method="GET",
        data={"limit": 100},
        pagination_function=next_page,
        response_filter=count,
        deferrable=False,
    )


intergiro_http_operator()
