# SPDX-License-Identifier: Apache-2.0
"""The three documents of a session: the token pair, the lease and the login history.

:mod:`.codec` converts them to text and back. In memory, tokens are in plain text, but no ``repr`` contains them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

Slot = Literal["session", "lease", "logins"]
ReleaseReason = Literal["bank", "limited", "budget", "key", "shadowed", "free", "done"]
NotEmpty = Annotated[str, msgspec.Meta(min_length=1)]


def fingerprint(*parts: str) -> str:
    """Return a short digest that identifies a configuration.

    A digest could confirm a guessed API key, but a key is a random UUID: 122 bits cannot be guessed.
    """
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def session_name(key: str) -> str:
    """Return the name under which a session is stored.

    :param key: fingerprint of the origin and the API key, so that every connection with this key finds the session.
    """
    return f"intergiro_session_{key}"


def fits_a_header(token: str) -> bool:
    """Return whether a token can be sent in a header. If not, the error of requests would contain the token."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and its refresh token, and their place in the sequence of pairs.

    :param access_token: sent in the Authorization header.
    :param refresh_token: exchanged once, for the next pair.
    :param gen: generation; each new pair has a higher one.
    :param nonce: nonce of the lease under which the pair was stored.
    :param lock: fingerprint of the distributed lock under which it is renewed; None: the lease alone.
    :param login_at: epoch seconds of the login that began this bank session; 0 if unknown.
    :param login: nonce of that login's entry in the login history, if `login_at` is by the bank's clock; else "".
    :param issued_at: epoch seconds at which the bank issued these tokens; 0 if unknown. For people.
    :param writer: host and process that stored it. For people.
    :param connections: ids of the connections known to use this session. For people.
    :param key: fingerprint of the origin and the API key. Not stored: only this key decrypts the tokens.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    gen: int
    nonce: NotEmpty
    lock: str | None = None
    login_at: float = 0.0
    login: str = ""
    issued_at: float = 0.0
    writer: str = ""
    connections: tuple[str, ...] = ()
    key: str = ""

    @property
    def identity(self) -> tuple[int, str]:
        """What identifies a pair; token strings are not compared."""
        return self.gen, self.nonce

    def supersedes(self, rejected: TokenPair | None) -> bool:
        """Return whether this pair can replace a rejected one: it is another pair, and not an older one."""
        return rejected is None or (self.identity != rejected.identity and self.gen >= rejected.gen)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to renew the pair of one generation.

    :param gen: generation of the pair that is to be renewed.
    :param nonce: fresh for every attempt to acquire the lease.
    :param holder: host and process, for people.
    :param floor: highest generation known to have existed; keeps generations rising after a session was deleted.
    :param pair_nonce: nonce of the pair to which `release_reason` and `refused_at` apply; empty: there was none.
    :param release_reason: the reason for the end without a new pair, or "done"; None: the lease is held.
    :param at: epoch seconds at which the lease was acquired or released; 0 if unknown.
    :param exact: True: `at` is by the bank's clock. False: by a clock that may be wrong.
    :param blocked_until: epoch seconds until which no task sends a request to the bank, because of `release_reason`.
    :param detail: status and code of the bank's response that led to the release, for people.
    :param refused_at: epoch seconds at which the bank refused the refresh token of this generation; 0: it did not.
    """

    gen: int
    nonce: NotEmpty
    holder: str = ""
    floor: int = 0
    pair_nonce: str = ""
    release_reason: ReleaseReason | None = None
    at: float = 0.0
    exact: bool = False
    blocked_until: float = 0.0
    detail: str = ""
    refused_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Login:
    """One login, made or about to be made.

    :param at: epoch seconds.
    :param nonce: of the lease under which it was made.
    :param until: epoch seconds until which it counts.
    """

    at: float
    nonce: NotEmpty
    until: float


@dataclass(frozen=True, slots=True)
class LoginHistory:
    """The logins of the last hour."""

    logins: tuple[Login, ...] = ()


Document = TokenPair | Lease | LoginHistory
