# SPDX-License-Identifier: Apache-2.0
"""The session's documents in Airflow Variables.

Tasks and triggers of Airflow 3 access Variables through the Execution API, everything else through the metadata
database. Neither has a compare-and-swap, and :mod:`.renewal` does without. This module distinguishes "not found" from
"could not be read". A failure is always a :class:`~intergiro_provider.exceptions.StoreUnavailable`, without the text of
the cause, which may quote a value.
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
    "session": "Intergiro session of {users}. Managed by airflow-provider-intergiro. To reset it, delete it.",
    "lease": "The lease: which task may renew the Intergiro session. Managed by airflow-provider-intergiro.",
    "logins": "Logins to Intergiro within the last hour. Managed by airflow-provider-intergiro.",
}
SUFFIXES: dict[Slot, str] = {"session": "", "lease": "_lease", "logins": "_logins"}
SUFFIX_WITNESS = "_witness"
"""Suffix of a Variable that only Airflow 3.0 to 3.2 needs, and only before the first login."""


class VariableStore:
    """Stores the three documents of one session.

    :param codec: converts documents to text and back.
    :param name: the session's Variable; the other two have a suffix. "": the name follows from the codec's key.
    """

    def __init__(self, codec: Codec, name: str = "") -> None:
        self.name = name or session_name(codec.key)
        self._codec = codec

    def read(self, slot: Slot) -> Document | None:
        """Return the document; None if there seems to be none.

        :raises ShadowedError: an environment variable hides the Variable.
        :raises StoreUnavailable: it cannot be read, or is not a valid document.
        """
        key = self.key(slot)
        if f"AIRFLOW_VAR_{key.upper()}" in os.environ:
            raise ShadowedError(
                f"The environment variable AIRFLOW_VAR_{key.upper()} hides the Variable that holds the Intergiro "
                "session, so a new token pair could not be stored. Remove it from the environment of the workers, then "
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
            f"The Variable {key} cannot be used: {defect}. No request was sent to the bank. Delete the Variable; that "
            "costs one login."
        )

    def write(self, slot: Slot, document: Document) -> None:
        """Store the document, and replace an existing one.

        :raises StoreUnavailable: the write failed; it may still have taken effect.
        """
        key, text = self.key(slot), self._codec.encode(slot, document)
        used_by = document.connections if isinstance(document, TokenPair) else ()
        users = "the connection " + ", ".join(used_by) if used_by else "an unknown connection"
        description = DESCRIPTIONS[slot].format(users=users)
        self._try("written", key, lambda access: access.set(key, text, description))

    def is_absent(self, slot: Slot) -> bool:
        """Confirm that a document is absent, as far as this Airflow version allows; return False if it exists.

        :raises StoreUnavailable: that cannot be determined.
        """
        key = self.key(slot)
        witness = self.key("session" if slot == "lease" else "lease")
        absent = self._try("looked up", key, lambda access: access.is_absent(key, witness))
        if absent is None:
            raise StoreUnavailable(
                f"The Variable {key} seems to be missing, but so does one that was just written: Airflow's Variables "
                "cannot be read at present. No request was sent to the bank. The task can be retried."
            )
        return bool(absent)

    def delete(self, slot: Slot) -> bool:
        """Delete the document, even an invalid one; return False if there was none.

        :raises StoreUnavailable: the deletion failed.
        """
        from airflow.models.variable import Variable

        key = self.key(slot)
        return bool(self._try("deleted", key, lambda _: Variable.delete(key)))

    def key(self, slot: Slot) -> str:
        """Return the name of the Variable that holds this document."""
        return self.name + SUFFIXES[slot]

    def mask(self, pair: TokenPair) -> None:
        """Let Airflow mask the tokens in this task's logs and exceptions."""
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
                f"The Variable {key} could not be {what} ({kind}): the API server refuses this task. Set the same "
                "`[api_auth] jwt_secret` on every component, and synchronize their clocks. The task can be retried."
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

        if hasattr(Variable, "keys"):  # Airflow ≥ 3.3. Unlike get, it raises if Variables cannot be read.
            if key not in list(Variable.keys(prefix=key)):
                return True
            if self.get(key) is not None:
                return False
            # Keys are not encrypted, so `keys` lists a Variable that cannot be decrypted. A wait would not help.
            raise StoreUnavailable(
                f"The Variable {key} exists, but the API server cannot read it: most likely it was written with "
                "another Fernet key. Set the same `[core] fernet_key` on every component, or delete the Variable, "
                "which costs one login. No request was sent to the bank, and the task can be retried."
            )
        first, seen, second = self.get(key), self.get(witness), self.get(key)
        if first is not None or second is not None:
            return False
        # Before the first write there is no witness. The lease, written next and read back, becomes the witness.
        if seen is not None or key.endswith(SUFFIXES["lease"]):
            return True
        # Until then a Variable that is written here, once for each session.
        own = key + SUFFIX_WITNESS
        with contextlib.suppress(Exception):  # such as another task that writes it first
            self.set(own, "readable", "Shows that Variables can be read. Managed by airflow-provider-intergiro.")
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
            # Without any Fernet key, Airflow returns the cipher text.
            unreadable = value is None or (row.is_encrypted and value == row._val)
        if unreadable:
            raise StoreUnavailable(
                f"The Variable {key} cannot be decrypted: it was written with another Fernet key than this process "
                "has. Set the same `[core] fernet_key` on every component, or delete the Variable, which costs one "
                "login. No request was sent to the bank, and the task can be retried."
            )
        return value

    def set(self, key: str, value: str, description: str) -> None:
        from sqlalchemy.exc import IntegrityError
        from sqlalchemy.orm.exc import StaleDataError

        try:
            self._upsert(key, value, description)
        except (IntegrityError, StaleDataError):
            # Another process inserted or replaced the row between our read and our write.
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
    """Return the channel to the supervisor, which only tasks and triggers of Airflow 3 have; else None."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None)


def _access() -> _Access:
    return _ExecutionApi() if _comms() is not None else _Database()


def uses_execution_api() -> bool:
    """Return whether this process uses the Execution API for Variables, whose client repeats a slow write."""
    return _comms() is not None


def _is_task_process() -> bool:
    # The triggerer and the servers would keep every masked string as a pattern for as long as they run.
    comms = _comms()
    if comms is not None:
        return "Trigger" not in type(comms).__name__
    return "AIRFLOW_CTX_DAG_ID" in os.environ


def _mask_secret() -> Any:
    """Return Airflow's `mask_secret`, from the module that has it in this version."""
    # The first module has it since common-compat 1.22.
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
