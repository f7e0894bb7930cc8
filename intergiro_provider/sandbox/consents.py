# SPDX-License-Identifier: Apache-2.0
"""Strong customer authentication: the consents that were requested, and their decisions."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from intergiro_provider.sandbox.collection import iso
from intergiro_provider.sandbox.settings import Settings

Decision = Literal["approved", "refused"]


@dataclass
class Consent:
    """A consent that was requested.

    :param subject: what the consent allows.
    :param execute: makes the payment that waits for the consent; None: no payment waits.
    """

    subject: str
    scope: str
    expires_at: float
    execute: Callable[[], object] | None = None
    decision: Decision | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    token: str = field(default_factory=secrets.token_urlsafe)
    return_url: str = ""

    def describe(self, now: float) -> dict[str, Any]:
        """Return the consent as in the body of a 412."""
        return {
            "id": self.id,
            "status": self.decision or ("pending" if now < self.expires_at else "expired"),
            "scope": [self.scope],
            "expires_at": iso(round(self.expires_at * 1000)),
        }


class ConsentMissing(Exception):
    """The request needs the user's consent."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__("consent is needed")
        self.described = described


class Consents:
    """All consents that were requested.

    :param settings: a function, because settings change while the sandbox runs.
    :param clock: returns epoch seconds.
    """

    def __init__(self, settings: Callable[[], Settings], clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._by_id: dict[str, Consent] = {}
        self._by_token: dict[str, Consent] = {}
        self._latest: dict[tuple[str, str], Consent] = {}

    def need(self, subject: str, scope: str, execute: Callable[[], object] | None = None) -> None:
        """Return if the user has consented to `subject`.

        :raises ConsentMissing: the consent is pending, was refused, or has expired.
        """
        settings, now = self._settings(), self._clock()
        consent = self._latest.get((subject, scope))
        if consent is not None and now < consent.expires_at:
            if consent.decision == "approved":
                return
            if settings.consent_repeat == "kept":
                raise ConsentMissing(consent.describe(now))
            consent.expires_at = now
        consent = Consent(subject, scope, now + settings.consent_life, execute)
        self._by_id[consent.id] = self._by_token[consent.token] = self._latest[subject, scope] = consent
        raise ConsentMissing(consent.describe(now))

    def method(self, id: str, return_url: str, origin: str) -> dict[str, Any] | None:
        """Return the URL of the consent's page, which redirects to `return_url`; None if there is no such consent."""
        consent = self._by_id.get(id)
        if consent is None:
            return None
        consent.return_url = return_url
        redirect_url = f"{origin}/_sandbox/consents/{consent.token}"
        return {"method": {"redirect_url": redirect_url, "expires_at": iso(round(consent.expires_at * 1000))}}

    def described(self, id: str) -> dict[str, Any] | None:
        """Return the consent with this id, as in the body of a 412; None if there is none."""
        consent = self._by_id.get(id)
        return None if consent is None else {"consent": consent.describe(self._clock())}

    def of_token(self, token: str) -> Consent | None:
        """Return the consent whose page has this token in its URL; None if there is none."""
        return self._by_token.get(token)

    def is_open(self, consent: Consent) -> bool:
        """Return whether the consent is still pending."""
        return consent.decision is None and self._clock() < consent.expires_at

    def decide(self, consent: Consent, decision: Decision) -> bool:
        """Store the decision; return False if it is too late."""
        if not self.is_open(consent):
            return False
        consent.decision = decision
        if decision == "approved" and consent.execute is not None and self._settings().consent_executes:
            consent.execute()
        return True

    def decide_all(self, decision: Decision) -> int:
        """Store the same decision for all pending consents; return their number."""
        return sum(self.decide(consent, decision) for consent in list(self._by_id.values()))
