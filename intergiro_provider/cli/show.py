# SPDX-License-Identifier: Apache-2.0
"""`session show`: show what is stored, without a request to the bank."""

from __future__ import annotations

from typing import Any

from intergiro_provider.cli.deployment import Deployment, deployment, former_text
from intergiro_provider.cli.output import Result, ago, table
from intergiro_provider.cli.state import REASONS, session_state
from intergiro_provider.cli.target import TIMINGS, target


def show(conn_id: str) -> Result:
    """Return what is stored, without a request to the bank."""
    at = target(conn_id)
    state, found = session_state(at), deployment(at)
    shared = [other.conn_id for other in found.sharing(at)]
    former = [{"variable": name, "connections": list(ids)} for name, ids in found.former.items()]
    data = {**state, "shared_with": shared, "unlisted": list(found.unlisted), "former": former}
    return Result(data, _text(state, found, shared), failed=bool(state["problems"]))


def _text(state: dict[str, Any], found: Deployment, shared: list[str]) -> str:
    rows = [
        ("Connection", f"{state['conn_id']}: {state['host']} ({state['api']})"),
        ("Shared with", ", ".join(shared) or "no other connection that can be listed"),
        ("Session", _session_text(state["session"], bool(state["problems"]))),
    ]
    if (session := state["session"]) is not None:
        rows.append(("Logged in", _when(session["login_at"], session["login_age"])))
        rows.append(("Access token", _when(session["issued_at"], session["access_token_age"])))
    rows += [
        ("Logins", _logins_text(state["logins"])),
        ("Lease", _lease_text(state["lease"])),
        ("Lock", _lock_text(state["lock"])),
        ("Variable", state["variable"]),
        ("Former keys", former_text(found) + ("\nTo delete: `session prune`." if found.former else "")),
    ]
    rows += [("Problem", problem) for problem in state["problems"]]
    return table(rows)


def _session_text(session: dict[str, Any] | None, problems: bool) -> str:
    if session is None:
        return "not known, see below" if problems else "none stored; the next task logs in"
    by = f", written by {session['written_by']}" if session["written_by"] else ""
    return f"generation {session['generation']}{by}\nTo test it at the bank: `session renew`."


def _logins_text(logins: dict[str, Any]) -> str:
    if logins["counted"] is None:
        return "not known, see below"
    left = logins["allowed"] - logins["counted"]
    then = f"the next is allowed at {_people(logins['next_at'])}" if logins["next_at"] else f"{left} more allowed now"
    return f"{logins['counted']} of {logins['allowed']} within the hour; {then}"


def _lease_text(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "never acquired"
    if lease["state"] == "unknown":
        return "not known, see below"
    by = f" by {lease['holder']}" if lease["holder"] else ""
    if lease["state"] == "held":
        return (
            f"held{by}: a renewal is in progress, or its process was killed. A task that needs the session takes over "
            f"after it has seen no change for {TIMINGS.takeover:.0f} s."
        )
    if lease["release_reason"] in (None, "done"):
        return f"free; last acquired{by}"
    detail = f" ({lease['detail']})" if lease["detail"] else ""
    until = f"; not tried again before {_people(lease['blocked_until'])}" if lease["blocked_until"] else ""
    return f"free; the last renewal{by} failed: {REASONS[lease['release_reason']]}{detail}{until}"


def _lock_text(lock: dict[str, Any]) -> str:
    if lock["conn_id"]:
        return f"the lease, and the distributed lock of connection {lock['conn_id']}"
    return "the lease alone"


def _when(at: str | None, age: int | None) -> str:
    return "not known" if at is None or age is None else f"{_people(at)} ({ago(age)})"


def _people(at: str | None) -> str:
    return (at or "").replace("T", " ").replace("Z", " UTC")
