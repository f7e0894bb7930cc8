# SPDX-License-Identifier: Apache-2.0
"""Load what a pull has published into DuckDB or PostgreSQL, in one transaction; an unchanged rerun writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_intergiro.pulls import open_directory


def load_into_duckdb(
    path: str,
    table: str,
    database: str,
    *,
    history: bool = False,
    on_new_field: str = "add",
    lock_timeout: float = 300.0,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load the result at a path into a table; return what that changed: rows inserted, changed, unchanged, vanished.

    It needs the extra ``duckdb``. Errors are those of this package; wrap the call in :func:`.dagster_errors`, so that
    Dagster retries the transient ones alone.

    :param path: the `path` of an :class:`.IntergiroPull`, of one partition.
    :param table: ``transactions`` or ``schema.transactions``.
    :param database: absolute path of the database file.
    :param history: whether changed rows are kept in ``<table>_history`` as well.
    :param on_new_field: ``add`` a column, ``ignore`` the field, or ``fail``.
    :param lock_timeout: seconds to wait for another writer of the file.
    :param storage_options: arguments of the fsspec file system.
    """
    from intergiro_provider.load import open_warehouse
    from intergiro_provider.load.source import Source
    from intergiro_provider.load.steps import load

    warehouse = open_warehouse(table, None, database, history, on_new_field, lock_timeout)
    return load(warehouse, Source(open_directory(path, storage_options or {}))).to_dict()


def load_into_postgres(
    path: str,
    table: str,
    url: str,
    *,
    history: bool = False,
    on_new_field: str = "add",
    lock_timeout: float = 300.0,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load the result at a path into a table of PostgreSQL, as :func:`load_into_duckdb` does with DuckDB.

    It needs the extra ``postgres``.

    :param url: ``postgresql://user:password@host/database``. Read it from the environment when the asset runs.
    """
    from dagster_intergiro.postgres import Connections, engine_of
    from intergiro_provider.load.postgres import Postgres
    from intergiro_provider.load.source import Source
    from intergiro_provider.load.steps import load
    from intergiro_provider.load.target import Target

    warehouse = Postgres(Target(table, history, on_new_field), Connections(engine_of(url, "url")), lock_timeout)
    return load(warehouse, Source(open_directory(path, storage_options or {}))).to_dict()
