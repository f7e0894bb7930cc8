# SPDX-License-Identifier: Apache-2.0
"""Many tasks that all call the bank at once: some in workers, some deferred to the triggerer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, dag, task

from scripts.storm_dags.calls import BankTrigger, call_bank


class CallBankDeferred(BaseOperator):
    """Have the triggerer call the bank."""

    template_fields: Sequence[str] = ("conn_id", "calls", "seconds")

    def __init__(self, *, number: int, conn_id: str, calls: str, seconds: str, **kwargs: Any) -> None:
        """Take what `call_bank` takes; numbers may be templates."""
        super().__init__(**kwargs)
        self.number, self.conn_id, self.calls, self.seconds = number, conn_id, calls, seconds

    def execute(self, context: Any) -> None:
        """Leave it to the trigger."""
        trigger = BankTrigger(self.conn_id, self.number, int(self.calls), float(self.seconds))
        self.defer(trigger=trigger, method_name="measured")

    def measured(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger has measured; raises RuntimeError if it failed."""
        if "error" in event:
            raise RuntimeError(event["error"])
        return event


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_tasks=1000,
    params={"conn_id": "intergiro_default", "tasks": 8, "deferred": 0, "calls": 6, "seconds": 3.0},
)
def storm() -> None:
    how = {
        "conn_id": "{{ params.conn_id }}",
        "calls": "{{ params.calls }}",
        "seconds": "{{ params.seconds }}",
    }

    @task
    def numbers(count: str) -> list[int]:
        return list(range(int(count)))

    @task(retries=0)
    def in_worker(number: int, conn_id: str, calls: str, seconds: str) -> dict[str, Any]:
        return call_bank(conn_id, number, int(calls), float(seconds))

    in_worker.partial(**how).expand(number=numbers.override(task_id="tasks")("{{ params.tasks }}"))
    CallBankDeferred.partial(task_id="in_triggerer", retries=0, **how).expand(
        number=numbers.override(task_id="deferred")("{{ params.deferred }}")
    )


storm()
