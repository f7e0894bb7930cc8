# SPDX-License-Identifier: Apache-2.0
"""Store the session's documents, encrypted, in the place that `session_store` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dagster_intergiro.cells import Cells
from intergiro_provider.exceptions import IntergiroError, StoreUnavailable
from intergiro_provider.session.codec import Codec, DocumentError
from intergiro_provider.session.documents import Document, Slot, TokenPair, session_name

SUFFIXES: dict[Slot, str] = {"session": "", "lease": "_lease", "logins": "_logins"}


class CellStore:
    """The documents of one session.

    :param codec: converts documents to text and back, with the tokens encrypted.
    """

    def __init__(self, cells: Cells, codec: Codec) -> None:
        self.name = session_name(codec.key)
        self._cells = cells
        self._codec = codec

    def read(self, slot: Slot) -> Document | None:
        """Return the document; None if there is none.

        :raises StoreUnavailable: it cannot be read, or is not such a document.
        """
        key = self.key(slot)
        text: str | None = self._try("read", key, lambda: self._cells.get(key))
        if text is None:
            return None
        try:
            return self._codec.decode(slot, text)
        except DocumentError as error:
            problem = str(error)
        # Outside the handler, and without the text: neither this frame nor the error's context shows a token.
        del text
        raise StoreUnavailable(
            f"{key} in {self._cells.place} cannot be used: {problem}. Nothing was requested from the bank. Delete it "
            "to start a new session, which costs one login."
        )

    def write(self, slot: Slot, document: Document) -> None:
        """Store the document, and replace an existing one.

        :raises StoreUnavailable: that failed; it may have been stored all the same.
        """
        key, text = self.key(slot), self._codec.encode(slot, document)
        self._try("written", key, lambda: self._cells.set(key, text))

    def is_absent(self, slot: Slot) -> bool:
        """Return whether there is no such document.

        :raises StoreUnavailable: that cannot be determined.
        """
        return self.read(slot) is None

    def mask(self, pair: TokenPair) -> None:
        """Do nothing: Dagster has no list of secrets to hide."""

    def key(self, slot: Slot) -> str:
        """Return the name under which a document is kept."""
        return self.name + SUFFIXES[slot]

    def _try(self, what: str, key: str, operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except IntergiroError:
            raise
        except Exception as error:
            kind = type(error).__name__
        # Not chained: a database's error holds the statement's parameters.
        raise StoreUnavailable(
            f"{key} could not be {what} ({kind}): {self._cells.place} is not available. Nothing is lost; the step can "
            "be retried."
        )
