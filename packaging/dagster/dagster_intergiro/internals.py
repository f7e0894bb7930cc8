# SPDX-License-Identifier: Apache-2.0
"""All that this package uses of Dagster beside its public API: an instance's key-value storage, its database, a step's
retry policy and name, and partitions in YAML.

No other module of this package uses such API. The tests of this module run with the oldest and the newest Dagster that
is supported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster.components.resolved.core_models import (
    DailyPartitionsDefinitionModel,
    HourlyPartitionsDefinitionModel,
    StaticPartitionsDefinitionModel,
    TimeWindowPartitionsDefinitionModel,
    WeeklyPartitionsDefinitionModel,
    resolve_partitions_def,
)

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, DagsterInstance, OpExecutionContext
    from sqlalchemy import Engine

__all__ = ["resolve_partitions_def"]

PARTITIONS_MODEL = (
    HourlyPartitionsDefinitionModel
    | DailyPartitionsDefinitionModel
    | WeeklyPartitionsDefinitionModel
    | TimeWindowPartitionsDefinitionModel
    | StaticPartitionsDefinitionModel
)
"""How partitions are written in the YAML of a component."""
TEMPORARY_HOME = ".tmp_dagster_home_"
"""How the name of the directory begins that ``dagster dev`` makes where DAGSTER_HOME is not set, and removes at its
end."""
PROBE = "intergiro"
"""Key under which an empty value is stored, once for each instance, to see that values can be stored."""


def is_temporary(instance: DagsterInstance) -> bool:
    """Return whether the instance's storage ends with this process, or with ``dagster dev``."""
    if instance.is_ephemeral or type(instance.run_storage).__name__ == "InMemoryRunStorage":
        return True
    database = sqlite_file(instance)
    return database is not None and any(part.startswith(TEMPORARY_HOME) for part in database.parts)


def has_key_values(instance: DagsterInstance) -> bool:
    """Return whether the key-value storage can be used. Dagster+ returns an error from it instead of raising it."""
    values = instance.run_storage.get_cursor_values({PROBE})
    if not isinstance(values, dict):
        return False
    if PROBE in values:  # stored by a process before this one: SQLite takes seconds for a write while many runs write
        return True
    result: Any = instance.run_storage.set_cursor_values({PROBE: ""})
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


def retries_of(context: AssetExecutionContext | OpExecutionContext, attempt: int) -> tuple[int, float] | None:
    """Return the retries of the step's policy, and the seconds before this one; None if it has no policy."""
    policy = context.get_step_execution_context().op_retry_policy
    return None if policy is None else (policy.max_retries, policy.calculate_delay(attempt))


def step_of(context: AssetExecutionContext) -> str:
    """Return the name of the step, the same for each of its retries."""
    return str(context.op_execution_context.op_handle)
