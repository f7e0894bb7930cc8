# SPDX-License-Identifier: Apache-2.0
"""Strong customer authentication: what needs a person's consent, and whether it was given."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from intergiro_provider.sandbox.collection import iso

LIFE = 600.0
"""Seconds for which a consent can be given, and for which it holds."""


@dataclass
class Consent:
    """A consent asked for; `subject` is what it lets through."""

    id: str
    subject: str
    scope: str
    expires_at: float
    given: bool = False

    def describe(self) -> dict[str, Any]:
        """As a 412 carries it."""
        return {
            "id": self.id,
            "status": "approved" if self.given else "pending",
            "scope": [self.scope],
            "expires_at": iso(round(self.expires_at * 1000)),
        }


class ConsentMissing(Exception):
    """Something that needs a person's consent first."""

    def __init__(self, consent: Consent) -> None:
        super().__init__("consent is needed")
        self.consent = consent


class Consents:
    """Every consent asked for.

    :param clock: epoch seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._consents: dict[str, Consent] = {}

    def need(self, subject: str, scope: str) -> None:
        """Go on only where a person has consented to `subject`.

        :raises ConsentMissing: the consent is still to be given, or has expired.
        """
        now = self._clock()
        for consent in self._consents.values():
            if consent.subject == subject and consent.scope == scope and now < consent.expires_at:
                if consent.given:
                    return
                raise ConsentMissing(consent)
        consent = Consent(str(uuid.uuid4()), subject, scope, now + LIFE)
        self._consents[consent.id] = consent
        raise ConsentMissing(consent)

    def method(self, consent_id: str, return_url: str) -> dict[str, Any] | None:
        """Where to send the person; None where there is no such consent."""
        consent = self._consents.get(consent_id)
        if consent is None:
            return None
        return {
            "method": {
                "type": "redirect",
                "redirect_url": f"https://consent.invalid/{consent.id}",
                "return_url": return_url,
                "expires_at": iso(round(consent.expires_at * 1000)),
            }
        }

    def give(self) -> int:
        """A person says yes to everything that is pending. Returns how many there were."""
        pending = [consent for consent in self._consents.values() if not consent.given]
        for consent in pending:
            consent.given = True
        return len(pending)
