# SPDX-License-Identifier: Apache-2.0
"""Convert documents to text and back: JSON, with the two tokens encrypted.

Without the API key, the tokens in the store, in an export, a database dump or a debug log are useless. The names
``access_token`` and ``refresh_token`` are not encrypted, because Airflow masks the values of such names.
"""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, replace
from typing import Any

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from intergiro_provider.session.documents import (
    Document,
    Lease,
    LoginHistory,
    Slot,
    TokenPair,
    fingerprint,
    fits_a_header,
)

VERSION = 2
"""Version 1 held the tokens in plain text."""
TYPES: dict[Slot, type[TokenPair] | type[Lease] | type[LoginHistory]] = {
    "session": TokenPair,
    "lease": Lease,
    "logins": LoginHistory,
}
TOKENS = ("access_token", "refresh_token")
MASK = "***"
"""What Airflow's UI and REST API show instead of a token. Saving it there overwrites the token."""


class DocumentError(ValueError):
    """The stored text is not a valid document. The message names the defect, never the content."""


class Codec:
    """Encodes and decodes the documents of one session.

    :param origin: scheme, host and port of the bank.
    :param api_key: the tokens are encrypted with a key derived from it.
    """

    def __init__(self, origin: str, api_key: str) -> None:
        self.key = fingerprint(origin, api_key)
        derived = HKDF(SHA256(), length=32, salt=origin.encode(), info=b"intergiro session tokens").derive(
            api_key.encode()
        )
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def encode(self, slot: Slot, document: Document) -> str:
        """Return the document as text."""
        fields = asdict(document)
        if isinstance(document, TokenPair):
            del fields["key"]
            fields |= {name: self._fernet.encrypt(fields[name].encode()).decode() for name in TOKENS}
        return msgspec.json.encode({"kind": slot, "v": VERSION, **fields}).decode()

    def decode(self, slot: Slot, text: str) -> Document:
        """Return the document in the text.

        :raises DocumentError: if it holds none. The error's frames hold the text: keep only its message.
        """
        try:
            fields = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError:
            raise DocumentError("it is not a JSON object") from None
        if fields.get("kind") != slot:
            raise DocumentError(f"its field kind is not {slot!r}")
        if fields.get("v") != VERSION:
            raise DocumentError(f"its field v is not {VERSION}: another version of this provider wrote it")
        try:
            document: Document = msgspec.convert(fields, type=TYPES[slot])
        except msgspec.ValidationError as error:
            # Only the name at its end: the rest of the message may quote the value.
            name = re.search(r"([\w.\[\]]+)`$", str(error))
            raise DocumentError(f"its field {name[1].lstrip('.') if name else '?'} is missing or wrong") from None
        return self._decrypted(document) if isinstance(document, TokenPair) else document

    def _decrypted(self, pair: TokenPair) -> TokenPair:
        if MASK in (pair.access_token, pair.refresh_token):
            raise DocumentError(
                f"it holds {MASK} instead of a token. It was saved in Airflow's UI or REST API, which do not show "
                "tokens"
            )
        try:
            access, refresh = (self._fernet.decrypt(getattr(pair, name)).decode() for name in TOKENS)
        except (InvalidToken, ValueError):
            raise DocumentError(
                "its tokens cannot be decrypted with this connection's API key. It was edited, or copied from "
                "another session"
            ) from None
        if not fits_a_header(access):
            raise DocumentError("its access token cannot be sent in a header")
        return replace(pair, access_token=access, refresh_token=refresh, key=self.key)
