# SPDX-License-Identifier: Apache-2.0
"""Load the result of a pull into a table: manifest → staging table → merge → `_intergiro_loads`.

:mod:`.source` reads the files, :mod:`.steps` has the steps that all engines share, and :mod:`.postgres` and
:mod:`.duck` each hold one engine. Account data go into the table only: no message, log line or result holds a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intergiro_provider.load.warehouse import Warehouse


def open_warehouse(
    table: str,
    sql_conn_id: str | None = None,
    database: str | None = None,
    history: bool = False,
    on_new_field: str = "add",
    lock_timeout: float = 300.0,
) -> Warehouse:
    """Return the warehouse to load into; for the parameters see :class:`.IntergiroToSqlOperator`.

    :raises IntergiroValueError: a parameter is not valid, or the engine's package is missing.
    """
    from intergiro_provider.exceptions import IntergiroValueError
    from intergiro_provider.load.target import Target

    target = Target(table, history, on_new_field)
    if sql_conn_id is None:
        if not database or not database.startswith("/"):
            raise IntergiroValueError(f"`database` must be the absolute path of a DuckDB file, not {database!r}")
        try:
            from intergiro_provider.load.duck import Duck
        except ImportError as error:
            raise IntergiroValueError(
                f"`database` needs the package duckdb: pip install 'airflow-provider-intergiro[duckdb]' ({error})"
            ) from error
        return Duck(target, database, lock_timeout)
    from airflow.providers.common.compat.sdk import BaseHook

    connection = BaseHook.get_connection(sql_conn_id)
    if connection.conn_type not in ("postgres", "postgresql"):
        raise IntergiroValueError(
            f"`sql_conn_id`: the connection {sql_conn_id} is of type {connection.conn_type}; only postgres is supported"
        )
    try:
        from airflow.providers.postgres.hooks.postgres import PostgresHook
    except ImportError as error:
        raise IntergiroValueError(
            "`sql_conn_id` needs Airflow's provider for PostgreSQL: pip install 'airflow-provider-intergiro[postgres]' "
            f"({error})"
        ) from error
    from intergiro_provider.load.postgres import Postgres

    return Postgres(target, PostgresHook(sql_conn_id), lock_timeout)
