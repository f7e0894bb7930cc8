# SPDX-License-Identifier: Apache-2.0
"""Sessions in PostgreSQL: a table for the texts, and an advisory lock that the server releases when its holder ends."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Engine, NullPool
from sqlalchemy.dialects.postgresql import insert

from dagster_intergiro.cells import CONNECT_TIMEOUT, TABLE, Cells
from intergiro_provider.exceptions import IntergiroValueError, StoreUnavailable
from intergiro_provider.session.distributed_lock import TTL, DistributedLock
from intergiro_provider.session.documents import fingerprint
from intergiro_provider.session.postgres_lock import PostgresLock, key_of

_table = sqlalchemy.Table(
    TABLE,
    sqlalchemy.MetaData(),
    sqlalchemy.Column("key", sqlalchemy.Text, primary_key=True),
    sqlalchemy.Column("value", sqlalchemy.Text, nullable=False),
)


def engine_of(url: str, name: str) -> Engine:
    """Return an engine for a URL such as ``postgresql://user:password@host/database``, which has not connected yet.

    :param name: of the setting, for messages.
    :raises IntergiroValueError: the URL cannot be read, or the driver is not installed.
    """
    try:
        parsed = sqlalchemy.make_url(url.replace("postgres://", "postgresql://", 1))
        if parsed.drivername == "postgresql":
            # SQLAlchemy 2.1 would take psycopg, which dagster-postgres does not install.
            parsed = parsed.set(drivername="postgresql+psycopg2")
        if parsed.get_backend_name() == "postgresql":
            return sqlalchemy.create_engine(
                parsed, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT}, hide_parameters=True
            )
    except (sqlalchemy.exc.ArgumentError, ValueError):
        pass
    except ImportError as error:
        raise IntergiroValueError(
            f"`{name}` names PostgreSQL, but {error.name} is not installed: pip install 'dagster-intergiro[postgres]'."
        ) from None
    # Outside of the handler: an error of SQLAlchemy may quote the URL.
    raise IntergiroValueError(f"`{name}` is not a URL such as postgresql://user:password@host/database.")


def _connect(engine: Engine) -> Any:
    """Return a connection of the driver, which the engine forgets."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()
    return connection


class Connections:
    """Stands in for Airflow's hook, which connects to the warehouse that a load writes to.

    :param engine: of the warehouse.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get_conn(self) -> Any:
        """Return a new connection of the driver."""
        try:
            return _connect(self._engine)
        except sqlalchemy.exc.DBAPIError as error:
            problem = error.orig
        assert problem is not None
        raise problem  # the driver's own error, by which a load recognizes that it may be retried


class TableCells(Cells):
    """Texts in a table of ours, in the database that `session_store` names.

    :raises IntergiroValueError: the URL cannot be read, or the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._engine = engine_of(url, "session_store")
        super().__init__(f"PostgreSQL at {self._engine.url.host}, database {self._engine.url.database}")
        self._is_made = False

    def get(self, key: str) -> str | None:
        with self._begin() as connection:
            value: str | None = connection.scalar(sqlalchemy.select(_table.c.value).where(_table.c.key == key))
        return value

    def set(self, key: str, text: str) -> None:
        statement = insert(_table).values(key=key, value=text)
        with self._begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": text}))

    def delete(self, key: str) -> None:
        with self._begin() as connection:
            connection.execute(_table.delete().where(_table.c.key == key))

    def lock(self, key: str) -> EngineLock:
        return EngineLock(self._engine, key, self.place)

    def _begin(self) -> Any:
        if not self._is_made:
            with self._engine.begin() as connection:
                # Two that make the table at once would collide in spite of IF NOT EXISTS.
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(key_of(TABLE))))
                _table.create(connection, checkfirst=True)
            self._is_made = True
        return self._engine.begin()


class EngineLock(PostgresLock):
    """The advisory lock, on a connection of an SQLAlchemy engine.

    :param engine: whatever its isolation level is; Dagster's commits each statement by itself, which would release the
        lock at once.
    """

    def __init__(self, engine: Engine, key: str, place: str) -> None:
        DistributedLock.__init__(self, place, ("postgres", engine.url.host or "", ""), key, engine.url.password, TTL)
        self.fingerprint = fingerprint("dagster", key)
        self._place = place
        self._engine = engine
        self._key = key_of(key)
        self._connection = self._wire = None

    def _open(self) -> Any:
        connection = _connect(self._engine)
        connection.autocommit = False
        return connection

    def _unavailable(self, what: str, error: Exception | None = None) -> StoreUnavailable:
        cause = f" ({self._described(error)})" if error is not None else ""
        return StoreUnavailable(
            f"The lock in {self._place} {what}{cause}. Nothing further was requested from the bank, and the Intergiro "
            "session is not renewed without the lock. Nothing is lost; the step can be retried."
        )
