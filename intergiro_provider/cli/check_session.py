# SPDX-License-Identifier: Apache-2.0
"""What `check` finds of a connection and its session."""

from __future__ import annotations

import os
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import conf

from intergiro_provider.api.settings import HOSTS
from intergiro_provider.cli.findings import Finding, by_time, timed
from intergiro_provider.cli.state import SLOTS, session_state
from intergiro_provider.cli.target import TIMINGS, Target, backends_before_the_database, hidden_by, target
from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.hooks.intergiro import IntergiroHook

ON_ONE_HOST = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})


def connection(at: Target) -> Finding:
    """Where the connection comes from and where it leads."""
    settings, where = at.settings, _origin_of_connection(at.conn_id)
    chosen = settings.origin == HOSTS[settings.api, settings.environment]
    api = f"{settings.api}, {settings.environment}" if chosen else f"{settings.api}, a host of its own"
    found = f"{at.conn_id} comes from {where} and leads to {settings.origin} ({api})."
    if at.conn_type != "intergiro":
        return Finding("connection", "error", f"{found} Its type is {at.conn_type!r}.", "Set its type to intergiro.")
    if settings.verify is False:
        return Finding(
            "connection",
            "error",
            f"{found} Certificates are not checked, so anybody on the way can read the API key.",
            "Let `verify` be true, or name a file with your certificate authorities.",
        )
    if settings.unknown_extras:
        return Finding(
            "connection",
            "warning",
            f"{found} Its extra holds names that mean nothing: {', '.join(settings.unknown_extras)}.",
            "Remove them, or correct their spelling.",
        )
    return Finding("connection", "ok", found)


def _origin_of_connection(conn_id: str) -> str:
    for backend in backends_before_the_database():
        if backend.get_connection(conn_id=conn_id) is not None:
            name = type(backend).__name__
            return "the environment" if name == "EnvironmentVariablesBackend" else name
    return "the metadata database"


def sharing(at: Target) -> Finding:
    """Which other connections share this one's session, and whether they do so in the same way."""
    mine, wrong, unread, same = at.settings, [], [], []
    for conn_id in _other_connections(at.conn_id):
        try:
            other = target(conn_id)
        except IntergiroError:
            unread.append(conn_id)
            continue
        if other.settings.key != mine.key:
            continue
        if other.settings.lock_conn_id != mine.lock_conn_id:
            wrong.append(f"{conn_id} shares the session, but names another lock_conn_id.")
        else:
            same.append(conn_id)
    if wrong:
        return Finding(
            "sharing",
            "error",
            " ".join(wrong),
            "Connections with one API key share a session, and need one lock_conn_id.",
        )
    if unread:
        return Finding(
            "sharing", "warning", f"These Intergiro connections cannot be read: {', '.join(unread)}.", "Correct them."
        )
    found = f"The session is shared with {', '.join(same)}." if same else "No other connection uses this API key here."
    if len(list(backends_before_the_database())) > 1:
        found += " Those in a secrets backend cannot be listed."
    return Finding("sharing", "ok", found)


def _other_connections(conn_id: str) -> Iterator[str]:
    """Ids of the other Intergiro connections in the environment and in the database."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        ids = set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == "intergiro")))
    # The environment does not tell upper case from lower.
    known = {other.upper() for other in ids} | {conn_id.upper()}
    for name in os.environ:
        other = name.removeprefix("AIRFLOW_CONN_")
        if other != name and other not in known and _is_intergiro(other.lower()):
            ids.add(other.lower())
    return iter(sorted(other for other in ids if other.upper() != conn_id.upper()))


def _is_intergiro(conn_id: str) -> bool:
    try:
        return bool(IntergiroHook.get_connection(conn_id).conn_type == "intergiro")
    except Exception:
        # Somebody else's, and somebody else's to mend.
        return False


def shadowing(at: Target) -> Finding:
    """Whether something hides the session's Variables."""
    hidden = {key: backend for slot in SLOTS if (backend := hidden_by(key := at.store.key(slot))) is not None}
    if not hidden:
        return Finding("shadowing", "ok", f"Nothing here hides {at.store.name} or the two Variables beside it.")
    return Finding(
        "shadowing",
        "error",
        " ".join(f"{key} is hidden by an entry in {backend}." for key, backend in hidden.items()),
        "Remove that entry: a renewed token could not be read back.",
    )


def session(at: Target) -> Finding:
    """Whether what is stored can be used."""
    state = session_state(at)
    if state["problems"]:
        more = f" There are {len(state['problems'])} such problems in all." if len(state["problems"]) > 1 else ""
        return Finding("session", "error", state["problems"][0] + more, "See `session show`.")
    stored = state["session"]
    if stored is None:
        return Finding("session", "ok", f"No session is stored in {at.store.name}; the first task logs in.")
    return Finding("session", "ok", f"{at.store.name} holds generation {stored['generation']}.")


def logins(at: Target) -> Finding:
    """Whether the next login would be allowed."""
    found = session_state(at)["logins"]
    if found["counted"] is None:
        return Finding("logins", "error", "The ledger of logins cannot be read.", "See `session show`.")
    text = f"{found['counted']} of {found['allowed']} logins within the hour are used."
    if found["next_at"] is None:
        return Finding("logins", "ok", text)
    return Finding(
        "logins",
        "warning",
        f"{text} The next is allowed at {found['next_at']}.",
        "If sessions keep ending early, something else logs in with the same API key. See the tasks' logs.",
    )


def lock(at: Target) -> Finding:
    """Whether the distributed lock can be had, and whether one is needed."""
    executors = [name.rsplit(".", 1)[-1] for name in conf.get("core", "executor").replace(":", ",").split(",")]
    executor = ", ".join(executors)
    # Not the session's own: a renewal under way would have to wait.
    strict = at.lock(f"{at.store.name}_check")
    if strict is None:
        if ON_ONE_HOST.issuperset(executors):
            return Finding("lock", "ok", f"No distributed lock; with {executor} on one host none is needed.")
        return Finding(
            "lock",
            "warning",
            f"No distributed lock, and {executor} may run tasks on many hosts: they agree by the lease, which waits.",
            "Name a postgres or redis connection as lock_conn_id in the extra, on every connection of this session.",
        )
    try:
        acquired, opening = timed(strict.try_acquire)
        _, checking = timed(strict.check) if acquired else (None, 0.0)
    finally:
        strict.release()
    state = by_time(checking, TIMINGS.lock_check)
    return Finding(
        "lock",
        state,
        f"Connection {at.settings.lock_conn_id} gives a lock in {opening * 1000:.0f} ms and confirms it in "
        f"{checking * 1000:.0f} ms; to confirm it may take {TIMINGS.lock_check:.0f} s.",
        None if state == "ok" else "Use a quicker service, or one that is nearer to the workers.",
    )
