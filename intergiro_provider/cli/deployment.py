# SPDX-License-Identifier: Apache-2.0
"""Find the connections and the stored sessions of this deployment.

Airflow lists the connections in its database and in the environment, but not those in a secrets backend. Each stored
session holds the ids of the connections that used it, so these are looked up by id as well.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from intergiro_provider.cli.target import Target, backends_before_the_database, target
from intergiro_provider.exceptions import IntergiroError, StoreUnavailable
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import LoginHistory
from intergiro_provider.session.store import VariableStore

_STORED = re.compile(r"(intergiro_session_[0-9a-f]{16})(_\w+)?")
_LISTED = {"EnvironmentVariablesBackend"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """The connections and sessions found beside one connection.

    :param others: the other Intergiro connections that can be read.
    :param unread: ids of Intergiro connections that cannot be read, so that their sessions are unknown.
    :param unlisted: names of the secrets backends, whose connections cannot be listed.
    :param former: sessions that none of these connections uses, with the ids of those that did.
    """

    others: tuple[Target, ...]
    unread: tuple[str, ...]
    unlisted: tuple[str, ...]
    former: dict[str, tuple[str, ...]]

    def sharing(self, at: Target) -> list[Target]:
        """Return the connections that share this one's session."""
        return [other for other in self.others if other.store.name == at.store.name]


def deployment(at: Target) -> Deployment:
    """Look at every connection and every stored session."""
    # Read the sessions first: a session created later must not be mistaken for a former one.
    stored = _stored_sessions()
    in_database, in_environment = _in_database(), _in_environment()
    listed = {conn_id for conn_id, kind in in_database.items() if kind == "intergiro"}
    listed |= {conn_id for conn_id in in_environment if _type_of(conn_id) == "intergiro"}
    others, unread = [], []
    for conn_id in sorted(listed.union(*stored.values()) - {at.conn_id}):
        try:
            if conn_id in listed or conn_id in in_database or _is_in_a_backend(conn_id):
                others.append(target(conn_id))
        except IntergiroError:
            unread.append(conn_id)
    # Names in the environment are in upper case.
    others = [other for other in others if other.conn_id.upper() != at.conn_id.upper()]
    used = {other.store.name for other in (at, *others)}
    return Deployment(
        tuple(others),
        tuple(unread),
        tuple(name for backend in backends_before_the_database() if (name := type(backend).__name__) not in _LISTED),
        {name: ids for name, ids in stored.items() if name not in used},
    )


def former_text(found: Deployment) -> str:
    """Return text about the sessions of former keys, and about what could not be listed."""
    named = [f"{name} (used by {', '.join(ids)})" if ids else name for name, ids in found.former.items()]
    text = f"Sessions of former API keys: {', '.join(named)}." if named else "No session of a former API key is stored."
    if found.unlisted and named:
        text += (
            f" Connections in {', '.join(found.unlisted)} cannot be listed. If one of them uses such a session, its "
            "next task has to log in."
        )
    return text


def still_counts(name: str) -> str | None:
    """Return the Variable of this session's login history if a login in it still counts; None if none does."""
    store = VariableStore(Codec("", ""), name)
    try:
        history = store.read("logins")
    except IntergiroError:
        return None
    counts = isinstance(history, LoginHistory) and any(entry.until > time.time() for entry in history.logins)
    return store.key("logins") if counts else None


def variables_of(name: str) -> list[str]:
    """Return the names of the Variables that belong to this session, whatever is in them."""
    return [key for key in _keys() if (match := _STORED.fullmatch(key)) and match[1] == name]


def same_key_elsewhere(at: Target) -> list[str]:
    """Return the connections of other types that hold this one's API key, as id and type."""
    found = {}
    for conn_id, kind in _in_database().items():
        if kind != "intergiro" and _holds(_row(conn_id), at.settings.api_key):
            found[conn_id] = kind
    for conn_id in _in_environment():
        connection = _read(conn_id)
        if connection is not None and connection.conn_type != "intergiro" and _holds(connection, at.settings.api_key):
            found[conn_id] = connection.conn_type
    return [f"{conn_id} (type {kind})" for conn_id, kind in sorted(found.items()) if conn_id != at.conn_id]


def _holds(connection: Any, api_key: str) -> bool:
    try:
        return api_key in (connection.password, connection.login) or api_key in (connection.extra or "")
    except Exception:
        # Not ours, and encrypted with another Fernet key, for example.
        return False


def _stored_sessions() -> dict[str, tuple[str, ...]]:
    """Return every stored session, with the ids of the connections that used it.

    A login history without a session is listed when none of its logins counts any more, so that it can be deleted.
    """
    keys = _keys()
    names = {match[1] for key in keys if (match := _STORED.fullmatch(key))}
    alone = {name for name in names if not {name, f"{name}_lease"}.intersection(keys)}
    return {name: _used_by(name) for name in sorted(names) if name not in alone or not still_counts(name)}


def _used_by(name: str) -> tuple[str, ...]:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    try:
        with create_session() as session:
            row: Any = session.scalar(select(Variable).where(Variable.key == name))
            document = msgspec.json.decode(row.get_val() or "null", type=dict[str, Any])
        return tuple(msgspec.convert(document["connections"], type=list[str]))
    except Exception:
        # Deleted in the meantime, edited, or encrypted with another Fernet key.
        return ()


def _keys() -> list[str]:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return list(session.scalars(select(Variable.key).where(Variable.key.startswith("intergiro_session_"))))


def _in_database() -> dict[str, str]:
    """Return the type of each connection in the database, by its id."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return {
            conn_id: kind or "" for conn_id, kind in session.execute(select(Connection.conn_id, Connection.conn_type))
        }


def _row(conn_id: str) -> Any:
    """Return the connection from the database; None if it cannot be read."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    try:
        with create_session() as session:
            row = session.scalar(select(Connection).where(Connection.conn_id == conn_id))
            session.expunge_all()
        return row
    except Exception:
        return None


def _in_environment() -> Iterator[str]:
    for name in sorted(os.environ):
        conn_id = name.removeprefix("AIRFLOW_CONN_")
        if conn_id != name:
            yield conn_id.lower()


def _read(conn_id: str) -> Any:
    try:
        return IntergiroHook.get_connection(conn_id)
    except Exception:
        # Another connection, which its owner has to correct.
        return None


def _type_of(conn_id: str) -> str | None:
    return getattr(_read(conn_id), "conn_type", None)


def _is_in_a_backend(conn_id: str) -> bool:
    """Return whether a connection is in the environment or in a secrets backend.

    :raises StoreUnavailable: a backend cannot be read.
    """
    for backend in backends_before_the_database():
        try:
            if backend.get_connection(conn_id=conn_id) is not None:
                return True
        except Exception as error:
            raise StoreUnavailable(
                f"{type(backend).__name__} cannot be searched for the connection {conn_id} ({type(error).__name__})."
            ) from None
    return False
