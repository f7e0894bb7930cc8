# SPDX-License-Identifier: Apache-2.0
"""The state of a session as it is stored, for scripts and for people. It never holds a token or a key."""

from __future__ import annotations

import time
from typing import Any

from intergiro_provider.cli.output import moment
from intergiro_provider.cli.target import Target, hidden_by
from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.session.budget import known_logins, next_allowed
from intergiro_provider.session.documents import Lease, LoginHistory, Slot, TokenPair

SLOTS: tuple[Slot, ...] = ("session", "lease", "logins")

REASONS = {
    "bank": "the bank gave no usable response",
    "budget": "the login budget was used up",
    "key": "the bank refused the API key",
    "shadowed": "an environment variable or a secrets backend hides the session's Variables",
    "limited": "the bank returned 429",
    "free": "it ended without a new token pair",
    "done": "",
}
"""The meaning of each `release_reason` of a lease."""
UNKNOWN_LEASE = {
    "state": "unknown", "generation": None, "holder": None, "release_reason": None, "blocked_until": None,
    "detail": None,
}  # fmt: skip


def session_state(target: Target) -> dict[str, Any]:
    """Return the state of one session. The keys are stable; times are in ISO 8601, ages in seconds."""
    documents: dict[Slot, Any] = {}
    unread: set[Slot] = set()
    problems = []
    for slot in SLOTS:
        try:
            documents[slot] = target.store.read(slot)
            if backend := hidden_by(target.store.key(slot)):
                problems.append(f"The Variable {target.store.key(slot)} is hidden by an entry in {backend}. Remove it.")
        except IntergiroError as error:
            documents[slot] = documents.get(slot)
            if documents[slot] is None:
                unread.add(slot)
            problems.append(str(error))
    session, now = documents["session"], time.time()
    return {
        "conn_id": target.conn_id,
        "host": target.settings.origin,
        "api": target.settings.api,
        "variable": target.store.name,
        "session": _session(session, now),
        "logins": _logins(
            None if "logins" in unread else documents["logins"] or LoginHistory(),
            session,
            target.settings.max_logins_per_hour,
            now,
        ),
        "lease": {**UNKNOWN_LEASE} if "lease" in unread else _lease(documents["lease"], session, now),
        "lock": _lock(session, target, problems),
        "problems": problems,
    }


def _session(session: TokenPair | None, now: float) -> dict[str, Any] | None:
    if session is None:
        return None
    return {
        "state": "stored",
        "generation": session.gen,
        "written_by": session.writer or None,
        "login_at": moment(session.login_at),
        "login_age": round(now - session.login_at) if session.login_at else None,
        "issued_at": moment(session.issued_at),
        "access_token_age": round(now - session.issued_at) if session.issued_at else None,
    }


def _logins(history: LoginHistory | None, session: TokenPair | None, allowed: int, now: float) -> dict[str, Any]:
    if history is None:
        return {"counted": None, "allowed": allowed, "next_at": None}
    counted = [entry for entry in known_logins(history, session) if entry.until > now]
    next_at = next_allowed(counted, allowed)
    return {"counted": len(counted), "allowed": allowed, "next_at": moment(next_at or 0.0)}


def _lease_state(lease: Lease, session: TokenPair | None) -> str:
    if lease.gen < (session.gen if session is not None else 0) or (session is None and lease.gen > 0):
        return "void"
    return "free" if lease.release_reason is not None else "held"


def held_by(lease: Lease | None, session: TokenPair | None) -> str | None:
    """Return the process that holds the lease, or that died while it held it; None if the lease is free."""
    if lease is None or _lease_state(lease, session) != "held":
        return None
    return lease.holder or "an unknown process"


def _lease(lease: Lease | None, session: TokenPair | None, now: float) -> dict[str, Any] | None:
    if lease is None:
        return None
    state = _lease_state(lease, session)
    # The reason does not apply to another token pair.
    applies = state == "free" and lease.pair_nonce == (session.nonce if session is not None else "")
    return {
        "state": state,
        "generation": lease.gen,
        "holder": lease.holder or None,
        "release_reason": lease.release_reason if applies else None,
        "blocked_until": moment(lease.blocked_until) if applies and lease.blocked_until > now else None,
        "detail": (lease.detail or None) if applies else None,
    }


def _lock(session: TokenPair | None, target: Target, problems: list[str]) -> dict[str, Any]:
    fingerprint: str | None = None
    matches: bool | None = None
    try:
        lock = target.lock(target.store.name)
        fingerprint = lock.fingerprint if lock is not None else None
        if session is not None:
            # A session that was made without a lock can be renewed under one.
            matches = session.lock in (None, fingerprint)
            if not matches:
                problems.append(
                    "The session was made under another `lock_conn_id` than this connection names, so it cannot be "
                    "renewed. Give every connection of this session the same, or reset the session."
                )
    except IntergiroError as error:
        problems.append(str(error))
    return {
        "conn_id": target.settings.lock_conn_id,
        "used_by_session": session is not None and session.lock is not None,
        "matches": matches,
    }
