# SPDX-License-Identifier: Apache-2.0
"""Load a pull into a table of PostgreSQL or DuckDB. Light to import: DAG files import it at every parse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, BaseOperator

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from intergiro_provider.load.target import Loaded
    from intergiro_provider.load.warehouse import Warehouse
    from intergiro_provider.pull.manifest import Manifest


class IntergiroToSqlOperator(BaseOperator):
    """Load the result of a pull into a table, exactly once, in one transaction.

    .. code-block:: python

        IntergiroToSqlOperator(
            task_id="load",
            path="s3://aws_default@lake/intergiro/transactions/{{ ds }}",
            table="transactions",
            sql_conn_id="warehouse",
        )

    The table gets a column for each top-level field and a row for each record, by its ``id``. Rows that differ are
    updated. Rows that the bank no longer has in the pull's interval are deleted, if the pull had no filter. The table
    ``_intergiro_loads`` in the same schema has a row for each pull that was loaded: to load it again does nothing.

    :param path: the `path` of an :class:`.IntergiroToObjectStorageOperator`. (templated)
    :param table: ``table`` or ``schema.table``, in lower case. Created if it is missing. (templated)
    :param sql_conn_id: a connection of type ``postgres``. Give this or `database`. (templated)
    :param database: the absolute path of a DuckDB file, which is created if it is missing. (templated)
    :param history: also append each new version of a row to ``<table>_history``, with ``_valid_from`` (when the pull
        began), ``_pull_id`` and ``_operation`` (``insert``, ``update``, ``delete``). A table that has a history
        keeps it.
    :param on_new_field: what to do about a field that the table has no column for: ``add`` the column, ``ignore`` the
        field, or ``fail``.
    :param lock_timeout: seconds to wait for another load of the table or, with DuckDB, for another process that has
        the file open.
    :return: ``{table, pull_id, rows, inserted, changed, unchanged, vanished, replaced, already, seconds}``.
    """

    _facets: tuple[tuple[str, str], tuple[str, str], Manifest, Loaded] | None = None

    template_fields: Sequence[str] = ("path", "table", "sql_conn_id", "database")
    ui_color = "#d9e8f6"

    def __init__(
        self,
        *,
        path: str,
        table: str,
        sql_conn_id: str | None = None,
        database: str | None = None,
        history: bool = False,
        on_new_field: str = "add",
        lock_timeout: float = 300.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.table = table
        self.sql_conn_id = sql_conn_id
        self.database = database
        self.history = history
        self.on_new_field = on_new_field
        self.lock_timeout = lock_timeout
        if (sql_conn_id is None) == (database is None):
            raise IntergiroValueError("Give either `sql_conn_id` (PostgreSQL) or `database` (a DuckDB file).")

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Load, and return what that changed."""
        from intergiro_provider.load.source import Source
        from intergiro_provider.load.steps import load
        from intergiro_provider.pull.directory import Directory
        from intergiro_provider.pull.location import object_storage_path
        from intergiro_provider.transfers.lineage import target_of

        path = object_storage_path(self.path)
        source, warehouse = Source(Directory(path.fs, path.path)), self._warehouse()
        loaded = load(warehouse, source)
        self._facets = (target_of(path), warehouse.dataset(), source.manifest, loaded)
        self._tell(context, loaded)
        return loaded.to_dict()

    def _warehouse(self) -> Warehouse:
        from intergiro_provider.load import open_warehouse

        return open_warehouse(
            self.table, self.sql_conn_id, self.database, self.history, self.on_new_field, self.lock_timeout
        )

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage which directory was read and which table was written."""
        from intergiro_provider.transfers.lineage import of_load

        return of_load(*self._facets) if self._facets else None

    def _tell(self, context: Context, loaded: Loaded) -> None:
        if loaded.already:
            self.log.info("%s: the pull %s is loaded already; nothing to do.", loaded.table, loaded.pull_id)
        else:
            self.log.info(
                "%s: %s rows in %.1f s: %s inserted, %s changed, %s unchanged, %s vanished.",
                loaded.table, f"{loaded.rows:,}", loaded.seconds, f"{loaded.inserted:,}", f"{loaded.changed:,}",
                f"{loaded.unchanged:,}", f"{loaded.vanished:,}",
            )  # fmt: skip
        if loaded.replaced:
            self.log.warning("%d character(s) became U+FFFD: NUL, or half of a surrogate pair.", loaded.replaced)
        for outlet in self.outlets:
            if isinstance(outlet, Asset) and (events := context.get("outlet_events")) is not None:
                events[outlet].extra.update(loaded.to_dict())
