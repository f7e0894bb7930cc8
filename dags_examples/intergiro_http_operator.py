# SPDX-License-Identifier: Apache-2.0
"""Read all pages of a list with Airflow's own HttpOperator, on an Intergiro connection.

It holds all pages in memory, and opens a connection for each. For long lists, use IntergiroToObjectStorageOperator. Do
not set `deferrable`: it builds another hook, which does not use Intergiro's session.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import dag
from airflow.providers.http.operators.http import HttpOperator

if TYPE_CHECKING:
    import requests


def next_page(response: requests.Response) -> dict[str, Any] | None:
    """Return the query of the next page; None after the last page."""
    page = response.json()
    return {"data": {"starting_after": page["data"][-1]["id"]}} if page["has_more"] else None


def count(responses: list[requests.Response]) -> int:
    """Return the task's result."""
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
