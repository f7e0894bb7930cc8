# SPDX-License-Identifier: Apache-2.0
"""What the three Variables of a session hold: the session itself, the lease, and the ledger of logins.

The names inside (``access_token``, ``refresh_token``) are ones that Airflow masks in its UI and REST API. A document
of a wrong kind or with a missing field is an error, never "absent": treating it as absent would mean a login.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

VERSION = 1

Verdict = Literal["bank", "budget", "key", "shadowed", "free"]


class DocumentError(ValueError):
    """The stored text is not such a document. The message names the defect, never the content."""


def fingerprint(*parts: str) -> str:
    """A short digest that tells two configurations apart without giving them away."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def fits_a_header(token: str) -> bool:
    """Whether a token can be sent as a bearer. Who tried with another would be shown it in the error."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token


@dataclass(frozen=True, slots=True)
class Session:
    """A pair of tokens, and where they stand in the sequence of pairs.

    :param access_token: goes into the Authorization header.
    :param refresh_token: buys the next pair, once.
    :param key: fingerprint of the origin and the API key that it was made with; "" in one seeded by a person.
    :param gen: generation; each new pair has a higher one.
    :param nonce: nonce of the lease under which it was stored; "" in one seeded by a person.
    :param lock: fingerprint of the strict lock under which it is renewed; None: the lease alone.
    :param login_at: epoch seconds of the login that began this bank session; 0 if unknown.
    :param login: nonce of that login's entry in the ledger, if `login_at` is by the bank's clock; else "".
    :param issued_at: epoch seconds at which the bank gave these tokens; 0 if unknown. For people.
    :param writer: host and process that stored it.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    key: str = ""
    gen: int = 0
    nonce: str = ""
    lock: str | None = None
    login_at: float = 0.0
    login: str = ""
    issued_at: float = 0.0
    writer: str = ""

    @property
    def identity(self) -> tuple[int, str]:
        """What tells two sessions apart; token strings are not compared."""
        return self.gen, self.nonce

    @property
    def mark(self) -> str:
        """What a lease names this session by."""
        return self.nonce or fingerprint(self.refresh_token)

    @property
    def seeded(self) -> bool:
        """Whether a person, and not this provider, wrote it."""
        return not self.nonce

    def encode(self) -> str:
        return _encode(
            "session",
            gen=self.gen,
            nonce=self.nonce,
            key=self.key,
            lock=self.lock,
            access_token=self.access_token,
            refresh_token=self.refresh_token,
            login_at=self.login_at,
            login=self.login,
            issued_at=self.issued_at,
            writer=self.writer,
        )

    @classmethod
    def decode(cls, text: str) -> Session:
        document = _decode(text)
        if "nonce" not in document and "kind" not in document:
            return cls(
                access_token=_access_token(document),
                refresh_token=_field(document, "refresh_token", str),
            )
        _check_kind(document, "session")
        lock = document.get("lock")
        if lock is not None and not isinstance(lock, str):
            raise DocumentError("its field lock is not a string")
        return cls(
            access_token=_access_token(document),
            refresh_token=_field(document, "refresh_token", str, may_be_empty=True),
            key=_field(document, "key", str),
            gen=_field(document, "gen", int),
            nonce=_field(document, "nonce", str),
            lock=lock,
            login_at=float(_field(document, "login_at", (int, float))),
            # Not in what version 0.1.0 stored.
            login=_field({"login": "", **document}, "login", str, may_be_empty=True),
            issued_at=float(_field({"issued_at": 0.0, **document}, "issued_at", (int, float))),
            writer=_field(document, "writer", str, may_be_empty=True),
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may renew the session of one generation.

    :param gen: generation of the session that is to be renewed.
    :param nonce: fresh for every attempt to take the lease.
    :param owner: host and process, for people.
    :param floor: highest generation known to have existed; keeps generations rising when the session is deleted.
    :param about: mark of the session that `verdict` and `refused_at` speak of; "" where there is none.
    :param verdict: set when the owner has ended without a new session, with the reason: the lease is then free again.
    :param verdict_at: epoch seconds at which the verdict was given.
    :param verdict_until: epoch seconds until which everybody may take the verdict for their own.
    :param verdict_key: the session key that the verdict speaks of.
    :param refused_at: epoch seconds at which the bank refused the refresh token of this generation; 0: it did not.
    """

    gen: int
    nonce: str
    owner: str = ""
    floor: int = 0
    about: str = ""
    verdict: Verdict | None = None
    verdict_at: float = 0.0
    verdict_until: float = 0.0
    verdict_key: str = ""
    refused_at: float = 0.0

    def encode(self) -> str:
        return _encode("lease", **{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def decode(cls, text: str) -> Lease:
        document = _decode(text)
        _check_kind(document, "lease")
        verdict = document.get("verdict")
        if verdict not in (None, *get_args(Verdict)):
            raise DocumentError("its field verdict is unknown")
        return cls(
            gen=_field(document, "gen", int),
            nonce=_field(document, "nonce", str),
            owner=_field(document, "owner", str, may_be_empty=True),
            floor=_field(document, "floor", int),
            about=_field(document, "about", str, may_be_empty=True),
            verdict=verdict,
            verdict_at=float(_field(document, "verdict_at", (int, float))),
            verdict_until=float(_field(document, "verdict_until", (int, float))),
            verdict_key=_field(document, "verdict_key", str, may_be_empty=True),
            refused_at=float(_field(document, "refused_at", (int, float))),
        )


@dataclass(frozen=True, slots=True)
class Login:
    """One login, made or about to be made.

    :param at: epoch seconds.
    :param nonce: of the lease under which it was made.
    :param until: epoch seconds until which it counts.
    """

    at: float
    nonce: str
    until: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """The logins of the last hour."""

    logins: tuple[Login, ...] = ()

    def encode(self) -> str:
        return _encode("logins", logins=[asdict(entry) for entry in self.logins])

    @classmethod
    def decode(cls, text: str) -> Ledger:
        document = _decode(text)
        _check_kind(document, "logins")
        entries = document.get("logins")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DocumentError("its field logins is not a list of objects")
        return cls(
            tuple(
                Login(
                    at=float(_field(entry, "at", (int, float))),
                    nonce=_field(entry, "nonce", str),
                    until=float(_field(entry, "until", (int, float))),
                )
                for entry in entries
            )
        )


def _encode(kind: str, **fields: Any) -> str:
    return json.dumps({"kind": kind, "v": VERSION, **fields})


def _decode(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        # The parser's message and context quote the text, which may hold tokens.
        raise DocumentError("it is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError("it is not a JSON object")
    return document


def _check_kind(document: Mapping[str, Any], kind: str) -> None:
    if document.get("kind") != kind:
        raise DocumentError(f"its field kind is not {kind!r}")
    if document.get("v") != VERSION:
        raise DocumentError(f"its field v is not {VERSION}: another version of this provider wrote it")


def _access_token(document: Mapping[str, Any]) -> str:
    token: str = _field(document, "access_token", str)
    if not fits_a_header(token):
        raise DocumentError("its field access_token is no token: it holds white space, or a character beyond ASCII")
    return token


def _field(document: Mapping[str, Any], name: str, kind: Any, may_be_empty: bool = False) -> Any:
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DocumentError(f"its field {name} is missing or has a wrong type")
    if value == "" and not may_be_empty:
        raise DocumentError(f"its field {name} is empty")
    return value
