# SPDX-License-Identifier: Apache-2.0
"""The findings of `check` about a connection and its session."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from intergiro_provider.api.settings import HOSTS
from intergiro_provider.cli.deployment import deployment, former_text, same_key_elsewhere
from intergiro_provider.cli.findings import Finding, by_time, timed
from intergiro_provider.cli.state import REASONS, SLOTS, session_state
from intergiro_provider.cli.target import TIMINGS, Target, backends_before_the_database, hidden_by

ON_ONE_HOST = frozenset({"LocalExecutor", "SequentialExecutor", "DebugExecutor"})


def connection(at: Target) -> Finding:
    """Check the connection's settings; say where the connection is stored and which host it names."""
    settings, where = at.settings, _origin_of_connection(at.conn_id)
    chosen = settings.origin == HOSTS[settings.api, settings.environment]
    api = f"{settings.api}, {settings.environment}" if chosen else f"{settings.api}, a custom host"
    found = f"{at.conn_id} comes from {where} and leads to {settings.origin} ({api})."
    if at.conn_type != "intergiro":
        return Finding("connection", "error", f"{found} Its type is {at.conn_type!r}.", "Set its type to intergiro.")
    if settings.verify is False:
        return Finding(
            "connection",
            "error",
            f"{found} TLS certificates are not verified, so the API key can be intercepted.",
            "Set `verify` to true, or to a file with your certificate authorities.",
        )
    if settings.unknown_extras:
        return Finding(
            "connection",
            "warning",
            f"{found} Its extra holds unknown names: {', '.join(settings.unknown_extras)}.",
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
    """Check the other connections with the same API key: whether they share the session and its lock."""
    found = deployment(at)
    same = found.sharing(at)
    wrong = [other.conn_id for other in same if other.settings.lock_conn_id != at.settings.lock_conn_id]
    if wrong:
        return Finding(
            "sharing",
            "error",
            f"{', '.join(wrong)} shares the session, but names another lock_conn_id.",
            "Set the same lock_conn_id on all connections with this API key.",
        )
    apart = [
        f"{other.conn_id} ({other.settings.origin})"
        for other in found.others
        if other not in same and other.settings.api_key == at.settings.api_key
    ] + same_key_elsewhere(at)
    if apart:
        return Finding(
            "sharing",
            "warning",
            f"{', '.join(apart)} holds the same API key, but does not share the session. Its logins are not in the "
            "login history, and can end the session.",
            "Use a connection of type intergiro that leads to the same host.",
        )
    if found.unread:
        return Finding(
            "sharing", "warning", f"These connections cannot be read: {', '.join(found.unread)}.", "Correct them."
        )
    text = (
        f"The session is shared with {', '.join(other.conn_id for other in same)}."
        if same
        else "No other connection uses this API key here."
    )
    if found.unlisted:
        text += f" Connections in {', '.join(found.unlisted)} cannot be listed; those that used a session are known."
    return Finding("sharing", "ok", text)


def former_sessions(at: Target) -> Finding:
    """List stored sessions whose API key no connection holds any more. They do no harm."""
    found = deployment(at)
    return Finding("former_sessions", "ok", former_text(found), "To delete: `session prune`." if found.former else None)


def shadowing(at: Target) -> Finding:
    """Check whether an environment variable or a secrets backend hides the session's Variables."""
    hidden = {key: backend for slot in SLOTS if (backend := hidden_by(key := at.store.key(slot))) is not None}
    if not hidden:
        return Finding("shadowing", "ok", f"Nothing here hides {at.store.name}, its lease or its login history.")
    return Finding(
        "shadowing",
        "error",
        " ".join(f"{key} is hidden by an entry in {backend}." for key, backend in hidden.items()),
        "Remove that entry. With it, a renewed token pair cannot be read back.",
    )


def session(at: Target) -> Finding:
    """Check whether the stored session can be used, and how the last renewal ended."""
    state = session_state(at)
    if state["problems"]:
        more = f" There are {len(state['problems'])} such problems in all." if len(state["problems"]) > 1 else ""
        return Finding("session", "error", state["problems"][0] + more, "See `session show`.")
    stored, lease = state["session"], state["lease"] or {}
    text = (
        f"{at.store.name} holds generation {stored['generation']}."
        if stored is not None
        else f"No session is stored in {at.store.name}; the next task logs in."
    )
    # Other failures end by themselves, and the login budget has its own finding. These two require an action.
    lasting = lease.get("release_reason") in ("key", "shadowed")
    if not lasting and not (lease.get("release_reason") in ("bank", "limited") and lease["blocked_until"]):
        return Finding("session", "ok", text)
    detail = f" ({lease['detail']})" if lease["detail"] else ""
    return Finding(
        "session",
        "error" if lasting else "warning",
        f"The last renewal failed: {REASONS[lease['release_reason']]}{detail}. {text}",
        REMEDIES[lease["release_reason"]],
    )


REMEDIES = {
    "key": "Check the connection's password, `api` and `environment`. Once the key is accepted: `session renew`.",
    "shadowed": "Remove the entry that hides the Variables, then clear the failed tasks.",
    "bank": "Wait. Tasks with retries continue by themselves.",
    "limited": "Wait. Tasks with retries continue by themselves. Send fewer requests at once.",
}


def logins(at: Target) -> Finding:
    """Check whether the next login would be allowed."""
    found = session_state(at)["logins"]
    if found["counted"] is None:
        return Finding("logins", "error", "The login history cannot be read.", "See `session show`.")
    text = f"{found['counted']} of {found['allowed']} logins within the hour are used."
    if found["next_at"] is None:
        return Finding("logins", "ok", text)
    return Finding(
        "logins",
        "warning",
        f"{text} The next is allowed at {found['next_at']}.",
        "If sessions keep ending early, another program logs in with the same API key. See the tasks' logs.",
    )


def lock(at: Target) -> Finding:
    """Check whether the distributed lock can be acquired, and whether a lock is needed."""
    executors = [name.rsplit(".", 1)[-1] for name in conf.get("core", "executor").replace(":", ",").split(",")]
    executor = ", ".join(executors)
    # Another lock than the session's: a renewal in progress would have to wait for it.
    distributed = at.lock(f"{at.store.name}_check")
    if distributed is None:
        if ON_ONE_HOST.issuperset(executors):
            return Finding("lock", "ok", f"No distributed lock; with {executor} on one host none is needed.")
        return Finding(
            "lock",
            "warning",
            f"No distributed lock. {executor} may run tasks on many hosts, so each renewal waits for the lease.",
            "Name a postgres or redis connection as lock_conn_id in the extra, on every connection of this session.",
        )
    try:
        acquired, opening = timed(distributed.try_acquire)
        _, checking = timed(distributed.check) if acquired else (None, 0.0)
    finally:
        distributed.release()
    state = by_time(checking, TIMINGS.lock_check)
    return Finding(
        "lock",
        state,
        f"Connection {at.settings.lock_conn_id} acquires a lock in {opening * 1000:.0f} ms and checks it in "
        f"{checking * 1000:.0f} ms; the limit of the check is {TIMINGS.lock_check:.0f} s.",
        None if state == "ok" else "Use a faster service, or one closer to the workers.",
    )
