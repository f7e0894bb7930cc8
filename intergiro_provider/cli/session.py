# SPDX-License-Identifier: Apache-2.0
"""`session show`, `session renew` and `session reset`."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from intergiro_provider.cli.output import Result
from intergiro_provider.cli.state import session_state, state_text
from intergiro_provider.cli.target import TIMINGS, Target, target
from intergiro_provider.exceptions import BankUnavailable, IntergiroError, IntergiroValueError
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.budget import dated
from intergiro_provider.session.documents import LoginHistory, TokenPair
from intergiro_provider.session.effects import Outcome, Renewed


def show(conn_id: str) -> Result:
    """What is stored. The bank is not asked."""
    state = session_state(target(conn_id))
    return Result(state, state_text(state), failed=bool(state["problems"]))


def renew(conn_id: str) -> Result:
    """Ask the bank; renew where it answers 401.

    :raises IntergiroError: whichever says best why there is no session.
    """
    at = target(conn_id)
    with _said_once():
        return _told(at, _renew(at))


def _renew(at: Target) -> Renewed:
    shared = IntergiroHook(at.conn_id).shared_session(at.settings)
    renewed = shared.obtain()
    if renewed.how != "logged_in":
        answer = at.bank.probe(renewed.pair.access_token, "")
        if answer.status == 401:
            renewed = shared.renew(renewed.pair, urlsplit(at.settings.probe_url("")).path)
        elif answer.outcome is Outcome.OK:
            renewed = Renewed(renewed.pair, "alive")
        else:
            said = f"it answered {answer.status}" if answer.status else f"no answer came: {answer.why}"
            raise BankUnavailable(
                f"The bank does not tell whether the session lives ({said}), so it was not renewed. Nothing is lost.",
                retry_after=answer.retry_after,
            )
    return renewed


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Keep back what the log says of the end of a renewal: this command says the same."""

    def is_other(record: logging.LogRecord) -> bool:
        return record.module != "report"

    log = logging.getLogger("intergiro_provider.session")
    log.addFilter(is_other)
    try:
        yield
    finally:
        log.removeFilter(is_other)


def _told(at: Target, renewed: Renewed) -> Result:
    gen = f"generation {renewed.pair.gen}"
    text = {
        "alive": f"The bank accepts the session of {gen}. Nothing was renewed.",
        "found": f"Somebody else has just renewed the session: {gen}.",
        "refreshed": f"The access token had expired. Refreshed: {gen}.",
        "logged_in": f"Logged in, since {renewed.why}: {gen}.",
    }[renewed.how]
    if not renewed.stored:
        text += (
            f"\nBut it could not be kept: the Variable {at.store.name} "
            + ("is hidden by something. " if renewed.shadowed else "cannot be written. ")
            + "See `check`."
        )
    data = {
        "conn_id": at.conn_id,
        "outcome": {"alive": "valid", "found": "renewed_elsewhere"}.get(renewed.how, renewed.how),
        "generation": renewed.pair.gen,
        "reason": renewed.why or None,
        "stored": renewed.stored,
    }
    return Result(data, text, failed=not renewed.stored)


def reset(conn_id: str, confirmed: bool, force: bool) -> Result:
    """Delete the session, once a person has confirmed it.

    :raises IntergiroValueError: if nobody confirmed it, a renewal is under way, or no login would be allowed.
    """
    at = target(conn_id)
    _confirm(at, session_state(at), confirmed)
    state = session_state(at)  # a person may have thought for minutes
    lease = state["lease"]
    # Without a session that can be read there is nothing to lose.
    if state["session"] is not None and lease is not None and lease["state"] == "held" and not force:
        raise IntergiroValueError(
            f"A renewal of this session seems to be under way, by {lease['holder'] or 'an unknown process'}. What it "
            "brings home would be lost, which costs a login. Wait until it has ended, which takes seconds, and at most "
            f"{TIMINGS.persist_until + TIMINGS.store:.0f} s; if its process has died, use --force."
        )
    if state["session"] is not None and state["logins"]["next_at"] and not force:
        raise IntergiroValueError(
            "The login budget is used up, so without this session no task has one before "
            f"{state['logins']['next_at']}. If the session is of no use, use --force. Nothing was changed."
        )
    _keep_login(at)
    deleted = at.store.delete("session")
    logins = _logins_left(state)
    return Result(
        {"conn_id": at.conn_id, "variable": at.store.name, "deleted": deleted, "logins": state["logins"]},
        (f"The session is forgotten: {at.store.name} is deleted. " if deleted else "There was no session to forget. ")
        + f"The next task logs in. {logins}",
    )


def _logins_left(state: dict[str, Any]) -> str:
    logins = state["logins"]
    if logins["counted"] is None:
        return "How many logins this hour has seen, is not known."
    if logins["next_at"]:
        return f"The login budget is used up: that will be possible at {logins['next_at']} only."
    return f"{logins['counted']} of {logins['allowed']} logins within the hour are used."


def _confirm(at: Target, state: dict[str, Any], confirmed: bool) -> None:
    if confirmed:
        return
    question = (
        f"Forget the Intergiro session of {at.conn_id!r} ({at.store.name})? The next task logs in. "
        f"{_logins_left(state)}\n[y/N] "
    )
    if not sys.stdin.isatty():
        raise IntergiroValueError("Nobody can be asked here. Use --yes to reset the session. Nothing was changed.")
    print(question, end="", file=sys.stderr, flush=True)  # noqa: T201 # a question to the person at the terminal
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise IntergiroValueError("Not confirmed. Nothing was changed.")


def _keep_login(at: Target) -> None:
    """Enter the session's login into the ledger, should a late write have struck it off: a reset must not do that."""
    try:
        session, ledger = at.store.read("session"), at.store.read("logins") or LoginHistory()
    except IntergiroError:
        # A broken document is what a reset is for.
        return
    if not isinstance(session, TokenPair) or not isinstance(ledger, LoginHistory) or not session.login:
        return
    login = dated(session.login_at, session.login)
    if login.until > time.time() and login.nonce not in {entry.nonce for entry in ledger.logins}:
        at.store.write("logins", LoginHistory((*ledger.logins, login)))
