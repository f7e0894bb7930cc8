# SPDX-License-Identifier: Apache-2.0
"""A DAG with one task for each way to call Intergiro.

The parameter `target` is the ObjectStoragePath URL of the directory that the transfer writes to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import dag, task
from airflow.providers.http.operators.http import HttpOperator

from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

PAGE = 50


def next_page(response: Any) -> dict[str, Any] | None:
    """Return the parameters of the next page for the stock HttpOperator; None at the end."""
    body = response.json()
    if not body["has_more"]:
        return None
    return {"data": {"limit": PAGE, "starting_after": body["data"][-1]["id"]}}


def count_records(responses: Any) -> dict[str, int]:
    """Return counts, because the result goes into XCom."""
    records = [record for response in responses for record in response.json()["data"]]
    return {"pages": len(responses), "records": len({record["id"] for record in records})}


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"target": ""},
)
def doors() -> None:
    @task
    def hook_in_task() -> dict[str, int]:
        from intergiro_provider.hooks.intergiro import IntergiroHook

        hook = IntergiroHook()
        accounts = hook.run("accounts", {"limit": 100}).json()["data"]
        by_full_path = hook.run("/v3/accounts", {"limit": 100}).json()["data"]
        transactions = sum(1 for _ in hook.iter_records("transactions"))
        pooled = hook.get_conn().get(hook.run("accounts").url, timeout=30)
        return {
            "accounts": len(accounts),
            "by_full_path": len(by_full_path),
            "transactions": transactions,
            "pooled_status": pooled.status_code,
        }

    hook_in_task()

    IntergiroOperator(
        task_id="call_operator",
        endpoint="accounts",
        query={"limit": 100},
        response_check=lambda response: response.status_code == 200,
        response_filter=lambda response: sorted(account["currency"] for account in response.json()["data"]),
    )

    HttpOperator(
        task_id="stock_http_operator",
        http_conn_id="intergiro_default",
        method="GET",
        endpoint="transactions",
        data={"limit": PAGE},
        pagination_function=next_page,
        response_filter=count_records,
    )

    IntergiroToObjectStorageOperator(
        task_id="transfer", endpoint="transactions", path="{{ params.target }}", compression="gzip"
    )


doors()
