# SPDX-License-Identifier: Apache-2.0
"""The session's documents in Airflow Variables.

Airflow offers two ways to a Variable: the Execution API in tasks and triggers of Airflow 3, and the metadata database
everywhere else. Neither has a compare-and-swap; :mod:`.renewal` is written for that. This module adds that
"not found" and "could not be read" are told apart, and a failure is always
:class:`~intergiro_provider.exceptions.StoreUnavailable`, without the text of the cause, which may quote a value.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import Any, Protocol

from intergiro_provider.exceptions import ShadowedError, StoreUnavailable
from intergiro_provider.session.codec import Codec, DocumentError
from intergiro_provider.session.documents import Document, Slot, TokenPair, session_name

DESCRIPTIONS: dict[Slot, str] = {
    "session": "Intergiro session of {users}. Kept by airflow-provider-intergiro; to start again, delete it.",
    "lease": "Which task may renew the Intergiro session beside it. Kept by airflow-provider-intergiro.",
    "logins": "Logins to Intergiro within the last hour. Kept by airflow-provider-intergiro.",
}
SUFFIXES: dict[Slot, str] = {"session": "", "lease": "_lease", "logins": "_logins"}
SUFFIX_WITNESS = "_witness"
"""Of a Variable that only Airflow 3.0 to 3.2 needs, and only before the first login."""


class VariableStore:
    """The three documents of one session.

    :param codec: turns documents into text and back.
    :param name: the session's Variable, beside which lease and login history are stored; "": by the codec's key.
    """

    def __init__(self, codec: Codec, name: str = "") -> None:
        self.name = name or session_name(codec.key)
        self._codec = codec

    def read(self, slot: Slot) -> Document | None:
        """Return the document; None where there seems to be none.

        :raises ShadowedError: if an environment variable hides the Variable.
        :raises StoreUnavailable: if it cannot be read, or is not such a document.
        """
        key = self.key(slot)
        if f"AIRFLOW_VAR_{key.upper()}" in os.environ:
            raise ShadowedError(
                f"The environment variable AIRFLOW_VAR_{key.upper()} hides the Variable in which the Intergiro session "
                "is kept, so a new token pair could not be stored. Remove it from the environment of the workers, then "
                "clear the task."
            )
        text = self._try("read", key, lambda access: access.get(key))
        if text is None:
            return None
        try:
            return self._codec.decode(slot, text)
        except DocumentError as error:
            defect = str(error)
        # Outside the handler, and without the text: neither this frame nor the error's context shows a token.
        del text
        raise StoreUnavailable(
            f"The Variable {key} cannot be used: {defect}. The bank was not asked. Delete the Variable; that costs one "
            "login."
        )

    def write(self, slot: Slot, document: Document) -> None:
        """Store the document, whatever is there.

        :raises StoreUnavailable: if that failed; it may have been stored all the same.
        """
        key, text = self.key(slot), self._codec.encode(slot, document)
        used_by = document.connections if isinstance(document, TokenPair) else ()
        users = "the connection " + ", ".join(used_by) if used_by else "an unknown connection"
        description = DESCRIPTIONS[slot].format(users=users)
        self._try("written", key, lambda access: access.set(key, text, description))

    def is_absent(self, slot: Slot) -> bool:
        """Whether a document that seemed absent is: with certainty, as far as this Airflow version allows.

        :raises StoreUnavailable: if nothing tells.
        """
        key = self.key(slot)
        witness = self.key("session" if slot == "lease" else "lease")
        absent = self._try("looked up", key, lambda access: access.is_absent(key, witness))
        if absent is None:
            raise StoreUnavailable(
                f"The Variable {key} seems to be missing, but so does one that was just written: Airflow's Variables "
                "cannot be read at present. The bank was not asked. The task can be retried."
            )
        return bool(absent)

    def delete(self, slot: Slot) -> bool:
        """Delete the document, whatever is in it; False: there was none.

        :raises StoreUnavailable: if that failed.
        """
        from airflow.models.variable import Variable

        key = self.key(slot)
        return bool(self._try("deleted", key, lambda _: Variable.delete(key)))

    def key(self, slot: Slot) -> str:
        """Return the name of the Variable that holds this document."""
        return self.name + SUFFIXES[slot]

    def mask(self, pair: TokenPair) -> None:
        """Have Airflow replace the tokens in this task's logs and exceptions, should anything print them."""
        if _is_task_process():
            mask_secret = _mask_secret()
            mask_secret(pair.access_token)
            mask_secret(pair.refresh_token)

    def _try(self, what: str, key: str, operation: Any) -> Any:
        try:
            return operation(_access())
        except StoreUnavailable:
            raise
        except Exception as error:
            # Neither chained nor quoted: a database error holds the statement's parameters.
            kind, refused = type(error).__name__, isinstance(error, PermissionError)
        if refused:
            raise StoreUnavailable(
                f"The Variable {key} could not be {what} ({kind}): the API server does not let this task in. Give "
                "every component the same `[api_auth] jwt_secret`, and let their clocks agree. The task can be retried."
            )
        raise StoreUnavailable(
            f"The Variable {key} could not be {what} ({kind}): Airflow's metadata database or API server is "
            "unavailable here. The task can be retried."
        )


class _Access(Protocol):
    def get(self, key: str) -> str | None: ...

    def set(self, key: str, value: str, description: str) -> None: ...

    def is_absent(self, key: str, witness: str) -> bool | None: ...


class _ExecutionApi:
    """Variables in a task or trigger of Airflow 3."""

    def get(self, key: str) -> str | None:
        from airflow.sdk import Variable

        value: str | None = Variable.get(key, None)
        return value

    def set(self, key: str, value: str, description: str) -> None:
        from airflow.sdk import Variable

        Variable.set(key, value, description)

    def is_absent(self, key: str, witness: str) -> bool | None:
        from airflow.sdk import Variable

        if hasattr(Variable, "keys"):  # Airflow ≥ 3.3: it raises where get would answer with the default
            if key not in list(Variable.keys(prefix=key)):
                return True
            if self.get(key) is not None:
                return False
            # Keys are not encrypted. Waiting would not help, and nobody would be told why.
            raise StoreUnavailable(
                f"The Variable {key} is there, but the API server cannot read it: most likely it has another Fernet "
                "key than the one that wrote it. Give every component the same `[core] fernet_key`, or delete the "
                "Variable, which costs one login. The bank was not asked; the task can be retried."
            )
        first, seen, second = self.get(key), self.get(witness), self.get(key)
        if first is not None or second is not None:
            return False
        # Before anything was ever written there is no witness; the lease, written next and read back, becomes it.
        if seen is not None or key.endswith(SUFFIXES["lease"]):
            return True
        # Until then, one that is written here, once for each session.
        own = key + SUFFIX_WITNESS
        with contextlib.suppress(Exception):  # such as another task that writes it first
            self.set(own, "readable", "Shows that Variables can be read, kept by airflow-provider-intergiro.")
        if self.get(own) is None:
            return None
        return self.get(key) is None


class _Database:
    """Variables where the metadata database can be reached: Airflow 2.11, the command line, plain Python."""

    def get(self, key: str) -> str | None:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            row = session.scalar(select(Variable).where(Variable.key == key))
            if row is None:
                return None
            value: str | None = row.get_val()
            # Without a key at all, Airflow hands out the cipher text.
            unreadable = value is None or (row.is_encrypted and value == row._val)
        if unreadable:
            raise StoreUnavailable(
                f"The Variable {key} cannot be decrypted: this process has another Fernet key than the one that wrote "
                "it. Give every component the same `[core] fernet_key`, or delete the Variable, which costs one login. "
                "The bank was not asked; the task can be retried."
            )
        return value

    def set(self, key: str, value: str, description: str) -> None:
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.orm.exc import StaleDataError

        try:
            self._upsert(key, value, description)
        except (IntegrityError, StaleDataError):
            # Somebody else inserted or replaced the row between our look and our write.
            self._upsert(key, value, description)

    def _upsert(self, key: str, value: str, description: str) -> None:
        from airflow.models.variable import Variable
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            row = session.scalar(select(Variable).where(Variable.key == key))
            if row is None:
                session.add(Variable(key=key, val=value, description=description))  # type: ignore[no-untyped-call]
            else:
                row.set_val(value)
                row.description = description

    def is_absent(self, key: str, witness: str) -> bool | None:
        return self.get(key) is None


def _comms() -> Any:
    """The channel to the supervisor, which only tasks and triggers of Airflow 3 have."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None)


def _access() -> _Access:
    return _ExecutionApi() if _comms() is not None else _Database()


def uses_execution_api() -> bool:
    """Whether Variables go through the Execution API here, whose client repeats a slow write by itself."""
    return _comms() is not None


def _is_task_process() -> bool:
    # In the triggerer and the servers every masked string would stay a pattern for as long as they run.
    comms = _comms()
    if comms is not None:
        return "Trigger" not in type(comms).__name__
    return "AIRFLOW_CTX_DAG_ID" in os.environ


def _mask_secret() -> Any:
    """Return Airflow's `mask_secret`, wherever this version keeps it."""
    # The first of them only from common-compat 1.22 on.
    for module in (
        "airflow.providers.common.compat.sdk",
        "airflow.sdk.log",
        "airflow.sdk.execution_time.secrets_masker",
        "airflow.utils.log.secrets_masker",
    ):
        try:
            return import_module(module).mask_secret
        except (ImportError, AttributeError):
            continue
    raise ImportError("This version of Airflow has no mask_secret.")
