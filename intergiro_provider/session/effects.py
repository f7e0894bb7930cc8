# SPDX-License-Identifier: Apache-2.0
"""The interface of the session protocol: its effects, their results, and the result of a renewal.

The protocol (:mod:`.renewal`) yields these effects and receives their results. A failed effect is thrown into it as
:class:`~intergiro_provider.exceptions.StoreUnavailable` or :class:`~intergiro_provider.exceptions.ShadowedError`.
In production the driver performs them, in the tests a simulated world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from intergiro_provider.session.documents import Document, Slot, TokenPair

Why = Literal["", "holder", "limited", "settle"]


@dataclass(frozen=True, slots=True)
class Read:
    """Read a document. Result: the document, or None if there seems to be none."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Write:
    """Write a document. After a failure, the write may still take effect, now or later."""

    slot: Slot
    document: Document


@dataclass(frozen=True, slots=True)
class ConfirmAbsent:
    """Confirm that a document is absent. Result: False if it exists; a failure if that cannot be determined."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Now:
    """Result: monotonic seconds of this process."""


@dataclass(frozen=True, slots=True)
class BankTime:
    """Result: the :class:`Moment` by the bank's clock, or by ours if the bank's is not known.

    :param exact: request the bank's time if it is not known yet.
    """

    exact: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    :param at: epoch seconds.
    :param exact: True: by the bank's clock. False: by ours, which may be wrong.
    """

    at: float
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait.

    :param jitter: upper limit of the random seconds to add. The caller may cut short only waits with jitter. The
        others are timing conditions.
    :param why: the reason for a long wait. holder: another process holds the lease; limited: the bank has returned
        429; settle: an interrupted renewal may still store its token pair.
    """

    seconds: float
    jitter: float = 0.0
    why: Why = ""


@dataclass(frozen=True, slots=True)
class NewNonce:
    """Result: a string that was never used before."""


@dataclass(frozen=True, slots=True)
class CheckKey:
    """Read the connection again. Result: whether it still has the same origin and API key."""


class Outcome(Enum):
    """The outcome of a bank call, as far as the protocol distinguishes it."""

    OK = "ok"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNSENT = "unsent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BankResponse:
    """The bank's response to one call.

    :param outcome: OK; REFUSED: refused for good; UNAVAILABLE: refused for now, nothing was done; UNSENT: certainly not
        sent; UNKNOWN: it may have been carried out.
    :param status: the HTTP status, 0 without one.
    :param at: epoch seconds of the response by its Date header; None without one.
    :param retry_after: seconds after which the bank allows another try; None if it did not say.
    :param code: the bank's machine-readable code of an error; "" without one.
    :param why: the reason for a missing response, for people.
    :param origin: where the call was sent, for people; empty if unknown.
    """

    outcome: Outcome
    status: int = 0
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    at: float | None = None
    retry_after: float | None = None
    code: str = ""
    why: str = ""
    origin: str = ""

    @property
    def detail(self) -> str:
        """Status and code, for people."""
        return f"{self.status}, {self.code}" if self.code else str(self.status or "")


@dataclass(frozen=True, slots=True)
class Probe:
    """Test this access token at a list endpoint. OK: it is valid; REFUSED: it may have expired."""

    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Exchange this refresh token for a new pair. Result: :class:`BankResponse`."""

    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in with the API key. Result: :class:`BankResponse`."""


Effect = Read | Write | ConfirmAbsent | Now | BankTime | Sleep | NewNonce | CheckKey | Probe | Refresh | LogIn


@dataclass(frozen=True, slots=True)
class Renewer:
    """The process that renews.

    :param key: fingerprint of the origin and the API key.
    :param lock: fingerprint of the distributed lock that it holds; None: it holds none.
    :param name: host and process, for people.
    :param connection: id of the connection, for people.
    :param max_logins: logins that all processes together may make in an hour.
    :param exclusive: every process renews this session under the lock. Then no wait is needed, even before a stored
        pair names the lock.
    """

    key: str
    lock: str | None = None
    name: str = ""
    connection: str = ""
    max_logins: int = 3
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """The result of a renewal.

    :param pair: the token pair to use.
    :param how: found: another task has renewed it; alive: the bank still accepts the old pair; refreshed; logged_in.
    :param stored: whether other processes can read it.
    :param shadowed: whether something hides the Variable, so that storing the pair had no effect.
    :param why: the reason for a login, for people.
    :param unexpected: whether it was a login that normal work does not need.
    """

    pair: TokenPair
    how: Literal["found", "alive", "refreshed", "logged_in"]
    stored: bool = True
    shadowed: bool = False
    why: str = ""
    unexpected: bool = False


class Abandoned(Exception):
    """The caller no longer wants the session. No step was interrupted."""


class KeyChanged(Exception):
    """The connection now has another origin or API key than this session. No login was made."""
