# SPDX-License-Identifier: Apache-2.0
"""Use the hook in your own task."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["intergiro", "example"],
    doc_md=__doc__,
)
def intergiro_hook_in_task() -> None:
    @task
    def count_cards() -> dict[str, int]:
        """Count the records of a list of any length, with one page in memory."""
        from intergiro_provider.hooks.intergiro import (
            IntergiroHook,
        )  # imported here, so that parsing this file stays cheap

        hook = IntergiroHook("intergiro_default")
        return dict(Counter(card["status"] for card in hook.iter_records("cards")))

    @task
    def newest_account() -> str:
        """Send one request. `get_conn()` returns a requests.Session that renews itself."""
        from intergiro_provider.hooks.intergiro import IntergiroHook

        hook = IntergiroHook("intergiro_default")
        answer = hook.run("accounts", {"limit": 1, "sort_by": "created_at", "sort_type": "DESC"}).json()
        return str(answer["data"][0]["created_at"]) if answer["data"] else "none"

    count_cards()
    newest_account()


intergiro_hook_in_task()
