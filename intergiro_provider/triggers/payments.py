# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for a person's consent to a payment. It sends only GET requests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from intergiro_provider.exceptions import IntergiroApiError
from intergiro_provider.triggers.polling import delay_after, get, in_thread

DEFAULT_LIFETIME = timedelta(hours=1)
"""How long to wait for a consent if the bank does not say when it expires."""
LAST_CHANCE = timedelta(seconds=60)
"""If the bank does not show the status of a consent, the wait ends this long before the consent expires."""
CLOCK_SKEW = timedelta(minutes=15)
"""How far the bank's clock may be behind ours. A consent that the bank shows as pending gets this much more time."""
DECISIONS = {
    **dict.fromkeys(("approved", "given", "granted", "accepted", "authorized", "completed", "consumed"), "approved"),
    **dict.fromkeys(("refused", "rejected", "denied", "declined", "cancelled", "canceled", "revoked"), "refused"),
    "expired": "expired",
}


def consent_variable(consent_id: str) -> str:
    """Return the name of the Variable that exists after the person has returned from the bank's page."""
    return f"intergiro_consent_{consent_id}"


class IntergiroConsentTrigger(BaseTrigger):
    """Wait until a consent is decided, or is about to expire.

    The event is ``{"decision": …}``, with one of these values:

    * ``approved``, ``refused``, ``expired``: the bank shows this status
    * ``returned``: the person has returned from the bank's page
    * ``unknown``: the consent is about to expire, and the bank does not show a status that the provider knows

    :param consent_id: the id of the consent.
    :param expires_at: when the consent expires, in ISO 8601; None: the bank did not say.
    :param poll_interval: seconds between two requests.
    :param intergiro_conn_id: the connection.
    """

    def __init__(
        self,
        consent_id: str,
        expires_at: str | None = None,
        poll_interval: float = 10.0,
        intergiro_conn_id: str = "intergiro_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.consent_id = consent_id
        self.expires_at = expires_at
        self.poll_interval = poll_interval
        self.intergiro_conn_id = intergiro_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments, from which the triggerer creates this trigger."""
        return f"{__name__}.{type(self).__name__}", {
            "consent_id": self.consent_id,
            "expires_at": self.expires_at,
            "poll_interval": self.poll_interval,
            "intergiro_conn_id": self.intergiro_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield one event."""
        from intergiro_provider.payments.record import parse_time

        began = datetime.now(UTC)
        expires = parse_time(self.expires_at) or began + DEFAULT_LIFETIME
        last_chance = expires - min(LAST_CHANCE, (expires - began) / 4)
        readable, is_known, errors = True, True, 0
        while True:
            decision = None
            seconds = self.poll_interval
            try:
                if readable:
                    status = await in_thread(self.intergiro_conn_id, self._status)
                    decision, is_known = DECISIONS.get(status), status in (*DECISIONS, "pending")
                decision = decision or await in_thread(
                    self.intergiro_conn_id, functools.partial(_returned, self.consent_id)
                )
                errors = 0
            except IntergiroApiError as error:
                if error.status_code in (404, 405, 501):
                    self.log.info("The bank does not show consents. Waiting for the person to return from its page.")
                    readable, seconds = False, 0.0
                else:
                    errors += 1
                    seconds = delay_after(errors, error)
            except Exception as error:
                errors += 1
                seconds = delay_after(errors, error)
                self.log.warning("Polling again in %.0f s, after error %d in a row: %s", seconds, errors, error)
            bank_decides = readable and is_known
            now, until = datetime.now(UTC), expires + CLOCK_SKEW if bank_decides else last_chance
            if decision is None and now >= until:
                decision = "expired" if bank_decides else "unknown"
            if decision is not None:
                yield TriggerEvent({"decision": decision})  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(max(0.0, min(seconds, (until - now).total_seconds())))

    def _status(self) -> str:
        """Return the status of the consent in lower case; empty if the bank shows none."""
        content = get(self.intergiro_conn_id, f"consents/{self.consent_id}", None).json()
        consent = content.get("consent", content) if isinstance(content, dict) else {}
        return str(consent.get("status", "")).lower() if isinstance(consent, dict) else ""


def _returned(consent_id: str) -> str | None:
    """Return ``returned`` if the person has returned to the page in Airflow's UI, otherwise None."""
    return "returned" if _variables().get(consent_variable(consent_id), None) else None


def delete_return(consent_id: str) -> None:
    """Delete the Variable that the page has stored, so that a second wait does not end at once."""
    if _returned(consent_id):
        _variables().delete(consent_variable(consent_id))


def _variables() -> Any:
    """Return the class Variable of Airflow that works in this process."""
    from intergiro_provider.session.store import uses_execution_api

    if uses_execution_api():
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable
