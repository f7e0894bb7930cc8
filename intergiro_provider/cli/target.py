# SPDX-License-Identifier: Apache-2.0
"""The connection of a command, and the store of its session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException

from intergiro_provider.api.auth_client import AuthClient
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StoreUnavailable
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.distributed_lock import DistributedLock
from intergiro_provider.session.locks import open_lock
from intergiro_provider.session.store import VariableStore
from intergiro_provider.session.timings import Timings

TIMINGS = Timings()
"""The timings that every task uses."""


@dataclass(frozen=True, slots=True)
class Target:
    """A connection that can be read.

    :param conn_id: its id.
    :param conn_type: its type, which should be ``intergiro``.
    :param settings: its settings.
    :param store: where its session is stored.
    """

    conn_id: str
    conn_type: str
    settings: ApiSettings
    store: VariableStore

    @property
    def bank(self) -> AuthClient:
        """Return what sends requests to the bank."""
        return AuthClient(self.settings, TIMINGS.call, lambda: self.settings)

    def lock(self, name: str) -> DistributedLock | None:
        """Return the distributed lock of this name, without contacting its service; None if there is none."""
        if self.settings.lock_conn_id is None:
            return None
        return open_lock(self.settings.lock_conn_id, name, IntergiroHook.get_connection)


def target(conn_id: str) -> Target:
    """Return the connection, its settings and its store.

    :raises IntergiroValueError: if there is none, or it cannot be used.
    """
    hook = IntergiroHook(conn_id)
    try:
        conn_type = hook.get_connection(conn_id).conn_type
        settings = hook.settings
    except IntergiroError:
        raise
    except AirflowException:
        raise IntergiroValueError(
            f"There is no connection {conn_id!r}, or it cannot be read here: the metadata database cannot be reached, "
            "or [core] fernet_key is not the key that the connection was stored with. Name another with --conn-id, or "
            "add it: `airflow connections add`."
        ) from None
    except Exception as error:
        # Its text may quote the connection, with the API key in it.
        raise IntergiroValueError(f"The connection {conn_id!r} cannot be read ({type(error).__name__}).") from None
    store = VariableStore(Codec(settings.origin, settings.api_key))
    return Target(conn_id, conn_type or "", settings, store)


def backends_before_the_database() -> Iterator[Any]:
    """Yield the environment and the secrets backends, which Airflow searches before its database."""
    from airflow.configuration import ensure_secrets_loaded
    from airflow.secrets.metastore import MetastoreBackend

    for backend in ensure_secrets_loaded():
        if not isinstance(backend, MetastoreBackend):
            yield backend


def hidden_by(variable: str) -> str | None:
    """Return the name of the backend that hides the Variable in the database; None if none does.

    :raises StoreUnavailable: a secrets backend cannot be read.
    """
    for backend in backends_before_the_database():
        name = type(backend).__name__
        try:
            found = backend.get_variable(key=variable)
        except Exception as error:
            raise StoreUnavailable(
                f"{name}, which Airflow reads before its database, cannot be searched for {variable} "
                f"({type(error).__name__}). It may hide the session."
            ) from None
        if found is not None:
            return name
    return None
