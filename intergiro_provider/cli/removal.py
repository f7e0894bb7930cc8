# SPDX-License-Identifier: Apache-2.0
"""`session reset` and `session prune`: delete sessions."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from typing import Any

from intergiro_provider.cli.deployment import deployment, former_text, still_counts, variables_of
from intergiro_provider.cli.output import Result
from intergiro_provider.cli.state import held_by, session_state
from intergiro_provider.cli.target import TIMINGS, Target, target
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.session.budget import dated
from intergiro_provider.session.codec import Codec, DocumentError
from intergiro_provider.session.documents import Lease, LoginHistory, Slot, TokenPair


def reset(conn_id: str, confirmed: bool, force: bool) -> Result:
    """Delete the session after confirmation.

    :raises IntergiroValueError: it was not confirmed, a renewal is in progress, or no login would be allowed.
    """
    at = target(conn_id)
    _confirm(
        f"Delete the Intergiro session of {at.conn_id!r} ({at.store.name})? The next task logs in. "
        f"{_logins_left(session_state(at))}",
        confirmed,
    )
    state = session_state(at)  # the confirmation may have taken minutes
    if state["session"] is not None and state["logins"]["next_at"] and not force:
        raise IntergiroValueError(
            "The login budget is used up, so without this session tasks fail until "
            f"{state['logins']['next_at']}. If the session does not work, use --force. Nothing was changed."
        )
    _keep_login(at)
    deleted, holder = _delete(at, force)
    text = f"Deleted the session in {at.store.name}." if deleted else f"There was no session in {at.store.name}."
    if holder is None:
        text += " The next task logs in within seconds."
    else:
        text += (
            f" But a renewal by {holder} was in progress, or its process was killed. If it is still running, it may "
            f"store the session again within {TIMINGS.persist_until + TIMINGS.store:.0f} s: check with `session show`. "
            "Otherwise the next task logs in within seconds."
        )
    return Result(
        {
            "conn_id": at.conn_id,
            "variable": at.store.name,
            "deleted": deleted,
            "renewal_by": holder,
            "logins": state["logins"],
        },
        f"{text} {_logins_left(state)}",
    )


def _delete(at: Target, force: bool) -> tuple[bool, str | None]:
    """Delete the session and release the lease; return whether there was a session, and the lease holder.

    It is one transaction, which locks the row of the lease. A task that acquires the lease afterwards finds no session
    when it reads again, and stops before it sends a request to the bank.
    """
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    codec = Codec(at.settings.origin, at.settings.api_key)
    keys = at.store.key("lease"), at.store.name
    with create_session() as session:
        rows: dict[str, Any] = {
            row.key: row for row in session.scalars(select(Variable).where(Variable.key.in_(keys)).with_for_update())
        }
        held, stored = (rows.get(key) for key in keys)
        lease, pair = _document(codec, "lease", held), _document(codec, "session", stored)
        holder = held_by(lease, pair)
        if holder is not None and not force:
            raise IntergiroValueError(
                f"A renewal of this session seems to be in progress, by {holder}. A reset now would lose its tokens, "
                "which costs a login. Wait until it has ended. That takes seconds, and at most "
                f"{TIMINGS.persist_until + TIMINGS.store:.0f} s. If its process was killed, use --force. Nothing was "
                "changed."
            )
        if stored is not None:
            session.delete(stored)
        if held is not None:
            generations = (lease.gen, lease.floor) if lease is not None else ()
            held.set_val(codec.encode("lease", _freed(max(*generations, pair.gen if pair is not None else 0, 0))))
    return stored is not None, holder


def _document(codec: Codec, slot: Slot, row: Any) -> Any:
    try:
        return codec.decode(slot, row.get_val() or "") if row is not None else None
    except DocumentError:
        # A reset also removes an invalid document.
        return None


def _freed(floor: int) -> Lease:
    """Return a lease that ended long ago, so that the next task need not wait for a former holder's tokens.

    :param floor: highest generation that existed; generations must go on rising.
    """
    return Lease(
        gen=0,
        nonce=secrets.token_hex(8),
        holder=f"{socket.gethostname()}:{os.getpid()} (session reset)",
        floor=floor,
        release_reason="done",
        exact=True,
    )


def _keep_login(at: Target) -> None:
    """Enter the session's login into the history again, if a late write removed it; a reset must not lose it."""
    try:
        session, history = at.store.read("session"), at.store.read("logins") or LoginHistory()
    except IntergiroError:
        # A reset also removes an invalid document.
        return
    if not isinstance(session, TokenPair) or not isinstance(history, LoginHistory) or not session.login:
        return
    login = dated(session.login_at, session.login)
    if login.until > time.time() and login.nonce not in {entry.nonce for entry in history.logins}:
        at.store.write("logins", LoginHistory((*history.logins, login)))


def _logins_left(state: dict[str, Any]) -> str:
    logins = state["logins"]
    if logins["counted"] is None:
        return "The login history cannot be read."
    if logins["next_at"]:
        return f"The login budget is used up: the next login is allowed at {logins['next_at']}."
    return f"{logins['counted']} of {logins['allowed']} logins within the hour are used."


def prune(conn_id: str, confirmed: bool) -> Result:
    """Delete the sessions of former keys after confirmation.

    :raises IntergiroValueError: it was not confirmed, or a connection cannot be read.
    """
    found = deployment(target(conn_id))
    if found.unread:
        raise IntergiroValueError(
            f"These connections cannot be read: {', '.join(found.unread)}. So it is not known which sessions they use. "
            "Correct or delete these connections. Nothing was changed."
        )
    if found.former:
        _confirm(f"{former_text(found)}\nDelete {'them' if len(found.former) > 1 else 'it'}?", confirmed)
    kept = [key for name in found.former for key in _delete_all(name)]
    text = f"Deleted {', '.join(found.former)}." if found.former else "There is no session of a former key."
    if kept:
        text += f" Kept {', '.join(kept)}: the logins of the last hour still count. A later `session prune` deletes it."
    return Result({"conn_id": conn_id, "removed": list(found.former), "kept": kept}, text)


def _delete_all(name: str) -> list[str]:
    """Delete every Variable of this session except a login history that still counts; return what is left."""
    from airflow.models.variable import Variable

    kept = [history] if (history := still_counts(name)) else []
    for key in variables_of(name):
        if key not in kept:
            Variable.delete(key)
    return kept


def _confirm(question: str, confirmed: bool) -> None:
    """Ask for confirmation.

    :raises IntergiroValueError: the reply is not yes.
    """
    if confirmed:
        return
    if not sys.stdin.isatty():
        raise IntergiroValueError("Standard input is not a terminal. To confirm, use --yes. Nothing was changed.")
    print(f"{question}\n[y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 # a question to the person
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise IntergiroValueError("Not confirmed. Nothing was changed.")
