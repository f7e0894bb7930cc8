# SPDX-License-Identifier: Apache-2.0
"""Strong customer authentication: what needs a person's consent, and what the person decided."""

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
    """A consent that was asked for.

    :param subject: what it lets through.
    :param execute: carries out the payment that waits for it; None: nothing waits.
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
        """As a 412 carries it."""
        return {
            "id": self.id,
            "status": self.decision or ("pending" if now < self.expires_at else "expired"),
            "scope": [self.scope],
            "expires_at": iso(round(self.expires_at * 1000)),
        }


class ConsentMissing(Exception):
    """Something that needs a person's consent first."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__("consent is needed")
        self.described = described


class Consents:
    """Every consent that was asked for.

    :param settings: a function, because settings change while the sandbox runs.
    :param clock: epoch seconds.
    """

    def __init__(self, settings: Callable[[], Settings], clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._by_id: dict[str, Consent] = {}
        self._by_token: dict[str, Consent] = {}
        self._latest: dict[tuple[str, str], Consent] = {}

    def need(self, subject: str, scope: str, execute: Callable[[], object] | None = None) -> None:
        """Go on only where a person has consented to `subject`.

        :raises ConsentMissing: the consent is still to be given, was refused, or has expired.
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
        """The page to send the person to, who comes back to `return_url`; None where there is no such consent."""
        consent = self._by_id.get(id)
        if consent is None:
            return None
        consent.return_url = return_url
        redirect_url = f"{origin}/_sandbox/consents/{consent.token}"
        return {"method": {"redirect_url": redirect_url, "expires_at": iso(round(consent.expires_at * 1000))}}

    def described(self, id: str) -> dict[str, Any] | None:
        """The consent with this id, as a 412 carries it."""
        consent = self._by_id.get(id)
        return None if consent is None else {"consent": consent.describe(self._clock())}

    def of_token(self, token: str) -> Consent | None:
        """The consent whose page has this token in its URL."""
        return self._by_token.get(token)

    def is_open(self, consent: Consent) -> bool:
        """Whether a person may still decide."""
        return consent.decision is None and self._clock() < consent.expires_at

    def decide(self, consent: Consent, decision: Decision) -> bool:
        """A person decides. Returns False where it is too late."""
        if not self.is_open(consent):
            return False
        consent.decision = decision
        if decision == "approved" and consent.execute is not None and self._settings().consent_executes:
            consent.execute()
        return True

    def decide_all(self, decision: Decision) -> int:
        """A person decides everything that is pending alike. Returns how many there were."""
        return sum(self.decide(consent, decision) for consent in list(self._by_id.values()))
