# SPDX-License-Identifier: Apache-2.0
"""Common features of DAGs: default_args, a pool, mapped tasks, a trigger rule, the hook in a @task.

The parameters are `target`, the URL of a directory, and `connection`, which default_args pass to every task. One pull
writes to a bucket of Google Cloud Storage, which a file system in memory replaces. Links and lineage are the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import dag, task
from fsspec.implementations.memory import MemoryFileSystem

from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach

attach("gs", conn_id="google", fs=MemoryFileSystem())


@dag(
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"target": "", "connection": ""},
    default_args={
        "intergiro_conn_id": "{{ params.connection }}",
        "pool": "bank",
        "retries": 2,
        "retry_delay": timedelta(0),
    },
)
def everyday() -> None:
    pull = IntergiroToObjectStorageOperator(
        task_id="pull", endpoint="accounts", path="gs://google@lake/accounts/{{ dag_run.run_id }}", query={"limit": 2}
    )
    pull_mapped = IntergiroToObjectStorageOperator.partial(task_id="pull_mapped").expand_kwargs(
        [{"endpoint": name, "path": "{{ params.target }}/" + name} for name in ("cards", "individuals")]
    )
    broken = IntergiroToObjectStorageOperator(
        task_id="broken", endpoint="no_such_list", path="{{ params.target }}/broken"
    )
    call = IntergiroOperator.partial(task_id="call", endpoint="accounts", priority_weight=7).expand(
        query=[{"limit": 1}, {"limit": 2}]
    )

    @task
    def hook_in_task(params: dict[str, str]) -> int:
        from intergiro_provider.hooks.intergiro import IntergiroHook

        return len(list(IntergiroHook(params["connection"]).iter_records("accounts")))

    counted = hook_in_task.override(task_id="counted", pool="default_pool")()
    last = IntergiroOperator(
        task_id="last",
        endpoint="accounts",
        query={"limit": "{{ ti.xcom_pull(task_ids='counted') }}"},
        response_filter=lambda response: len(response.json()["data"]),
        trigger_rule="all_done",
    )
    [pull, pull_mapped, broken, call, counted] >> last


everyday()
