# SPDX-License-Identifier: Apache-2.0
"""Call one endpoint, check the response, and keep a small part of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import dag, task

from intergiro_provider.operators.intergiro import IntergiroOperator

if TYPE_CHECKING:
    import requests


def is_complete(response: requests.Response) -> bool:
    """Return whether the first page holds all accounts. If not, the task fails."""
    return not response.json()["has_more"]


def count_by_currency(response: requests.Response) -> dict[str, int]:
    """Return the task's result: the number of accounts per currency, and no account data."""
    return dict(Counter(account["currency"] for account in response.json()["data"]))


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_call_endpoint() -> None:
    accounts = IntergiroOperator(
        task_id="accounts",
        endpoint="accounts",
        query={"limit": 100},
        response_check=is_complete,
        response_filter=count_by_currency,
    )

    @task
    def report(counts: Any) -> str:
        """Use the result in the next task."""
        return ", ".join(f"{number} in {currency}" for currency, number in sorted(counts.items()))

    report(accounts.output)


intergiro_call_endpoint()
