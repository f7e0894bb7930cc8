# SPDX-License-Identifier: Apache-2.0
"""`session renew`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

from intergiro_provider.cli.output import Result
from intergiro_provider.cli.target import Target, target
from intergiro_provider.exceptions import BankUnavailable
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.effects import Outcome, Renewed


def renew(conn_id: str) -> Result:
    """Test the session at the bank, and renew it after a 401.

    :raises IntergiroError: there is no session. The class says why.
    """
    at = target(conn_id)
    with _said_once():
        return _told(at, _renew(at))


def _renew(at: Target) -> Renewed:
    shared = IntergiroHook(at.conn_id).shared_session(at.settings)
    renewed = shared.obtain()
    if renewed.how != "logged_in":
        response = at.bank.probe(renewed.pair.access_token, "")
        if response.status == 401:
            renewed = shared.renew(renewed.pair, urlsplit(at.settings.probe_url("")).path)
        elif response.outcome is Outcome.OK:
            renewed = Renewed(renewed.pair, "alive")
        else:
            said = f"it returned {response.status}" if response.status else f"there was no response: {response.why}"
            raise BankUnavailable(
                f"The bank did not say whether it accepts the session ({said}), so it was not renewed. Nothing is "
                "lost. Repeat the command.",
                retry_after=response.retry_after,
            )
    return renewed


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Drop the log line about the end of a renewal: the command prints the same."""

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
        "found": f"Another process has just renewed the session: {gen}.",
        "refreshed": f"The access token had expired. Refreshed: {gen}.",
        "logged_in": f"Logged in, since {renewed.why}: {gen}.",
    }[renewed.how]
    if not renewed.stored:
        text += (
            f"\nBut it could not be stored: the Variable {at.store.name} "
            + (
                "is hidden by an environment variable or a secrets backend. "
                if renewed.shadowed
                else "cannot be written. "
            )
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
