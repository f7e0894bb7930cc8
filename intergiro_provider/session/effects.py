# SPDX-License-Identifier: Apache-2.0
"""The edge of the session protocol: its participants, its effects and its result.

The protocol (:mod:`.renewal`) yields these effects and is sent the answers; a failed effect is thrown into it as
:class:`~intergiro_provider.exceptions.StoreUnavailable` or :class:`~intergiro_provider.exceptions.ShadowedError`.
The driver carries them out in production, a simulated world does in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from intergiro_provider.session.documents import Document, Slot, TokenPair

Why = Literal["", "holder", "limited", "settle"]


@dataclass(frozen=True, slots=True)
class Read:
    """Read a document. Answer: the document, or None where there seems to be none."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Write:
    """Write a document. After a failure it may have been stored all the same, now or later."""

    slot: Slot
    document: Document


@dataclass(frozen=True, slots=True)
class ConfirmAbsent:
    """Make sure that a document which seemed absent is. Answer: False if it is there; failure if nobody can tell."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Now:
    """Answer: monotonic seconds of this process."""


@dataclass(frozen=True, slots=True)
class BankTime:
    """Answer: the :class:`Moment` by the bank's clock; by ours where the bank's is not known.

    :param exact: ask the bank for its time if it is not known yet.
    """

    exact: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    :param at: epoch seconds.
    :param exact: whether by the bank's clock; else ours, which may be wrong.
    """

    at: float
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait.

    :param jitter: up to so many seconds longer, at random. Only a wait with jitter may be cut short by the caller; the
        others are timing conditions.
    :param why: what for, if it can take long. holder: another process holds the lease; limited: the bank has answered
        429; settle: an interrupted renewal may still store its token pair.
    """

    seconds: float
    jitter: float = 0.0
    why: Why = ""


@dataclass(frozen=True, slots=True)
class NewNonce:
    """Answer: a string that was never used before."""


@dataclass(frozen=True, slots=True)
class CheckKey:
    """Look the connection up again. Answer: whether it still holds the same origin and API key."""


class Outcome(Enum):
    """What a bank call came to, as far as the protocol cares."""

    OK = "ok"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    UNSENT = "unsent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """The bank's answer.

    :param outcome: OK; REFUSED: a definite no; UNAVAILABLE: not now, and nothing happened; UNSENT: it certainly did
        not leave; UNKNOWN: it may have been carried out.
    :param status: the HTTP status, 0 without one.
    :param at: epoch seconds of the bank's clock when it answered, by its Date header; None without one.
    :param retry_after: seconds after which the bank allows another try; None if it did not say.
    :param code: the bank's machine-readable code of an error; "" without one.
    :param why: for people, why there is no answer.
    :param origin: for people, whom the call went to; "" if unknown.
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
    """Ask a list endpoint with this access token whether it lives. OK: it does; REFUSED: no proof that it does."""

    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Exchange this refresh token for a new pair. Answer: :class:`Answer`."""

    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogIn:
    """Log in with the API key. Answer: :class:`Answer`."""


Effect = Read | Write | ConfirmAbsent | Now | BankTime | Sleep | NewNonce | CheckKey | Probe | Refresh | LogIn


@dataclass(frozen=True, slots=True)
class Renewer:
    """The process that renews.

    :param key: fingerprint of the origin and the API key.
    :param lock: fingerprint of the distributed lock that it holds; None: none.
    :param name: host and process, for people.
    :param connection: id of the connection, for people.
    :param max_logins: logins allowed in an hour, for all processes together.
    :param exclusive: no process renews this session without the lock, so that it needs no waiting even where no pair
        is stored that says so.
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

    :param pair: the token pair to go on with.
    :param how: found: another task had renewed it; alive: the bank still accepts the old one; refreshed; logged_in.
    :param stored: whether every other process can find it.
    :param shadowed: whether storing it had no effect because something hides the Variable.
    :param why: of a login, for people: what made it necessary.
    :param unexpected: whether it was a login that ordinary work does not need.
    """

    pair: TokenPair
    how: Literal["found", "alive", "refreshed", "logged_in"]
    stored: bool = True
    shadowed: bool = False
    why: str = ""
    unexpected: bool = False


class Abandoned(Exception):
    """The caller no longer wants the session, and nothing is half done."""


class KeyChanged(Exception):
    """The connection holds another origin or API key than this session was opened with, so no login was made."""
