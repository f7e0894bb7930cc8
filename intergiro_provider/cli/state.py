# SPDX-License-Identifier: Apache-2.0
"""What is known of a session without asking the bank, for scripts and for people. Never a token or a key."""

from __future__ import annotations

import time
from typing import Any

from intergiro_provider.cli.output import ago, moment, table
from intergiro_provider.cli.target import TIMINGS, Target, hidden_by
from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.session.budget import known_logins, next_allowed
from intergiro_provider.session.documents import Lease, LoginHistory, Slot, TokenPair

SLOTS: tuple[Slot, ...] = ("session", "lease", "logins")

REASONS = {
    "bank": "the bank gave no usable answer",
    "budget": "the login budget was used up",
    "key": "the bank refused the API key",
    "shadowed": "something hides the session's Variables",
    "limited": "the bank answered 429",
    "free": "it ended without a new session",
    "done": "",
}
"""What a verdict in a lease means."""
UNKNOWN_LEASE = {"state": "unknown", "generation": None, "holder": None, "verdict": None, "verdict_until": None}


def session_state(target: Target) -> dict[str, Any]:
    """Everything that is known, with keys that stay the same; times in ISO 8601, ages in seconds."""
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


def _logins(ledger: LoginHistory | None, session: TokenPair | None, allowed: int, now: float) -> dict[str, Any]:
    if ledger is None:
        return {"counted": None, "allowed": allowed, "next_at": None}
    counted = [entry for entry in known_logins(ledger, session) if entry.until > now]
    next_at = next_allowed(counted, allowed)
    return {"counted": len(counted), "allowed": allowed, "next_at": moment(next_at or 0.0)}


def _lease(lease: Lease | None, session: TokenPair | None, now: float) -> dict[str, Any] | None:
    if lease is None:
        return None
    gen = session.gen if session is not None else 0
    if lease.gen < gen or (session is None and lease.gen > 0):
        state = "void"
    elif lease.verdict is not None:
        state = "free"
    else:
        state = "held"
    # About another token pair it says nothing about this one.
    about = session.nonce if session is not None else ""
    holds = state == "free" and lease.verdict_until > now and lease.about == about
    return {
        "state": state,
        "generation": lease.gen,
        "holder": lease.holder or None,
        "verdict": lease.verdict,
        "verdict_until": moment(lease.verdict_until) if holds else None,
    }


def _lock(session: TokenPair | None, target: Target, problems: list[str]) -> dict[str, Any]:
    fingerprint: str | None = None
    matches: bool | None = None
    try:
        lock = target.lock(target.store.name)
        fingerprint = lock.fingerprint if lock is not None else None
        if session is not None:
            # A session made without a lock may be taken over into one.
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


def state_text(state: dict[str, Any]) -> str:
    """The same for people."""
    rows = [
        ("Connection", f"{state['conn_id']}: {state['host']} ({state['api']})"),
        ("Session", _session_text(state["session"], bool(state["problems"]))),
    ]
    if (session := state["session"]) is not None:
        rows.append(("Logged in", _when(session["login_at"], session["login_age"])))
        rows.append(("Access token", _when(session["issued_at"], session["access_token_age"])))
    logins = state["logins"]
    rows += [
        ("Logins", _logins_text(logins)),
        ("Lease", _lease_text(state["lease"])),
        ("Lock", _lock_text(state["lock"])),
        ("Variable", state["variable"]),
    ]
    rows += [("Problem", problem) for problem in state["problems"]]
    return table(rows)


def _session_text(session: dict[str, Any] | None, problems: bool) -> str:
    if session is None:
        return "not known, see below" if problems else "none stored; the next task logs in"
    by = f", written by {session['written_by']}" if session["written_by"] else ""
    said = f"generation {session['generation']}{by}"
    return f"{said}\nWhether the bank still accepts it, only a request tells: `session renew`."


def _logins_text(logins: dict[str, Any]) -> str:
    if logins["counted"] is None:
        return "not known, see below"
    then = f"the next is allowed at {_people(logins['next_at'])}" if logins["next_at"] else "one more is allowed"
    return f"{logins['counted']} of {logins['allowed']} within the hour; {then}"


def _lease_text(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "never taken"
    if lease["state"] == "unknown":
        return "not known, see below"
    by = f" by {lease['holder']}" if lease["holder"] else ""
    if lease["state"] == "void" or lease["verdict"] == "done":
        return f"free; last taken{by}"
    if lease["state"] == "free":
        until = f"; not tried again before {_people(lease['verdict_until'])}" if lease["verdict_until"] else ""
        return f"free; the last renewal{by} failed: {REASONS[lease['verdict']]}{until}"
    return (
        f"held{by}: a renewal is under way, or its process has died, or the session was deleted. Whoever needs the "
        f"session takes over after seeing no change for {TIMINGS.takeover:.0f} s."
    )


def _lock_text(lock: dict[str, Any]) -> str:
    if lock["conn_id"]:
        return f"the lease, and the distributed lock of connection {lock['conn_id']}"
    return "the lease alone"


def _when(at: str | None, age: int | None) -> str:
    return "not known" if at is None or age is None else f"{_people(at)} ({ago(age)})"


def _people(at: str | None) -> str:
    return (at or "").replace("T", " ").replace("Z", " UTC")
