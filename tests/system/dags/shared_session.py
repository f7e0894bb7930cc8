# SPDX-License-Identifier: Apache-2.0
"""Mapped tasks that call the bank until the access token has expired in each of them."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import dag, task


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"seconds": 12},
)
def shared_session() -> None:
    @task(retries=0)
    def call_for_a_while(number: int, seconds: str) -> int:
        import time

        from intergiro_provider.hooks.intergiro import IntergiroHook

        hook = IntergiroHook()
        calls = 0
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            hook.run("accounts" if number % 2 else "transactions", {"limit": 1})
            calls += 1
            time.sleep(0.2)
        return calls

    call_for_a_while.partial(seconds="{{ params.seconds }}").expand(number=list(range(6)))


shared_session()
