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
"""If the bank does not show a consent, the payment is sent again this long before the consent expires."""
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

    * ``approved``, ``refused``, ``expired``: the bank shows the decision
    * ``returned``: the person has returned from the bank's page
    * ``unknown``: the consent is about to expire, and the bank does not show it

    :param consent_id: the consent.
    :param expires_at: when it expires, in ISO 8601; None if the bank did not say.
    :param poll_interval: seconds between two polls.
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
        from intergiro_provider.payments.record import parsed

        began = datetime.now(UTC)
        expires = parsed(self.expires_at) or began + DEFAULT_LIFETIME
        last_chance = expires - min(LAST_CHANCE, (expires - began) / 4)
        readable, errors = True, 0
        while True:
            decision = None
            seconds = self.poll_interval
            try:
                if readable:
                    decision = await in_thread(self.intergiro_conn_id, self._status)
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
            now = datetime.now(UTC)
            if decision is None and now >= (expires if readable else last_chance):
                decision = "expired" if now >= expires else "unknown"
            if decision is not None:
                yield TriggerEvent({"decision": decision})  # type: ignore[no-untyped-call]
                return
            left = ((expires if readable else last_chance) - now).total_seconds()
            await asyncio.sleep(max(0.0, min(seconds, left)))

    def _status(self) -> str | None:
        """Return the bank's decision about the consent; None while it is pending."""
        answer = get(self.intergiro_conn_id, f"consents/{self.consent_id}", None).json()
        described = answer.get("consent", answer) if isinstance(answer, dict) else {}
        return DECISIONS.get(str(described.get("status", "")).lower()) if isinstance(described, dict) else None


def _returned(consent_id: str) -> str | None:
    """Return ``returned`` if the page in Airflow's UI has stored that the person has returned, otherwise None."""
    return "returned" if _variables().get(consent_variable(consent_id), None) else None


def forget_return(consent_id: str) -> None:
    """Delete what the page has stored, so that the next wait does not end with it."""
    if _returned(consent_id):
        _variables().delete(consent_variable(consent_id))


def _variables() -> Any:
    """Return Airflow's class Variable that works in this process."""
    from intergiro_provider.session.store import uses_execution_api

    if uses_execution_api():
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable
