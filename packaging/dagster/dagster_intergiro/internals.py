# SPDX-License-Identifier: Apache-2.0
"""All that this package uses of Dagster beside its public API: an instance's key-value storage, its database, and a
step's retry policy.

No other module of this package uses such API. The tests of this module run with the oldest and the newest Dagster that
is supported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, DagsterInstance, OpExecutionContext, RetryPolicy
    from sqlalchemy import Engine

TEMPORARY_HOME = ".tmp_dagster_home_"
"""How the name of the directory begins that ``dagster dev`` makes where DAGSTER_HOME is not set, and removes at its
end."""


def is_temporary(instance: DagsterInstance) -> bool:
    """Return whether the instance's storage ends with this process, or with ``dagster dev``."""
    if instance.is_ephemeral or type(instance.run_storage).__name__ == "InMemoryRunStorage":
        return True
    database = sqlite_file(instance)
    return database is not None and any(part.startswith(TEMPORARY_HOME) for part in database.parts)


def has_key_values(instance: DagsterInstance) -> bool:
    """Return whether the key-value storage can be used. Dagster+ returns an error from it instead of raising it."""
    return isinstance(instance.run_storage.get_cursor_values({"intergiro"}), dict) and _writes(instance)


def _writes(instance: DagsterInstance) -> bool:
    result: Any = instance.run_storage.set_cursor_values({"intergiro": ""})
    return result is None


def get_value(instance: DagsterInstance, key: str) -> str | None:
    """Return a value of the key-value storage; None if there is none."""
    return instance.run_storage.get_cursor_values({key}).get(key) or None


def set_value(instance: DagsterInstance, key: str, value: str) -> None:
    """Store a value, whatever is there; "" stands for none, since this storage cannot delete."""
    instance.run_storage.set_cursor_values({key: value})


def sqlite_file(instance: DagsterInstance) -> Path | None:
    """Return the SQLite database of the key-value storage; None if it is another one."""
    url = str(getattr(_storage(instance), "_conn_string", ""))
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def postgres_engine(instance: DagsterInstance) -> Engine | None:
    """Return the engine of the key-value storage; None if its database is not PostgreSQL."""
    engine: Engine | None = getattr(_storage(instance), "_engine", None)
    return engine if engine is not None and engine.dialect.name == "postgresql" else None


def _storage(instance: DagsterInstance) -> Any:
    """Return the run storage itself, where a `storage:` entry of dagster.yaml has wrapped it."""
    storage: Any = instance.run_storage
    while (wrapped := getattr(storage, "_storage", None)) is not None:
        storage = wrapped.run_storage
    return storage


def retry_policy_of(context: AssetExecutionContext | OpExecutionContext) -> RetryPolicy | None:
    """Return the retry policy of the step, of its op or of its job; None if it has none."""
    return context.get_step_execution_context().op_retry_policy
