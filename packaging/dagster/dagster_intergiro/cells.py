# SPDX-License-Identifier: Apache-2.0
"""The places that can store the session's documents: named texts, and a lock for one process of all hosts.

Three places: the storage of the Dagster instance (the default), a directory, and a table in PostgreSQL. They have
no compare-and-swap in common, so a process that renews the session holds the lock.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dagster_intergiro import internals
from intergiro_provider.exceptions import IntergiroValueError, StoreUnavailable
from intergiro_provider.session.documents import fingerprint
from intergiro_provider.session.lock_file import LockFile

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from dagster_intergiro.postgres import EngineLock


TABLE = "intergiro_session_store"
CONNECT_TIMEOUT = 5
"""Seconds to reach the PostgreSQL server that `session_store` names."""


class Cells(ABC):
    """Named texts in one place.

    :param place: what the place is, for messages; holds no secret.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def get(self, key: str) -> str | None:
        """Return the text; None if there is none."""

    @abstractmethod
    def set(self, key: str, text: str) -> None:
        """Store a text, and replace an existing one."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete a text, if it exists."""

    @abstractmethod
    def lock(self, key: str) -> FileLock | EngineLock:
        """Return a lock with this name, for a single use."""


class InstanceCells(Cells):
    """Texts in the key-value storage of a Dagster instance, whose database gives the lock.

    :raises IntergiroValueError: the instance has no such storage, as in Dagster+, or its database gives no lock.
    """

    def __init__(self, instance: DagsterInstance) -> None:
        super().__init__("the storage of this Dagster instance")
        self._instance = instance
        self._file = internals.sqlite_file(instance)
        self._engine = internals.postgres_engine(instance)
        if not internals.has_key_values(instance):
            raise _unfit("this Dagster instance does not let code use its key-value storage (as in Dagster+)")
        if self._file is None and self._engine is None:
            raise _unfit("the storage of this Dagster instance is neither SQLite nor PostgreSQL, and gives no lock")

    def get(self, key: str) -> str | None:
        return internals.get_value(self._instance, key)

    def set(self, key: str, text: str) -> None:
        internals.set_value(self._instance, key, text)

    def delete(self, key: str) -> None:
        self.set(key, "")

    def lock(self, key: str) -> FileLock | EngineLock:
        if self._engine is not None:
            from dagster_intergiro.postgres import EngineLock

            return EngineLock(self._engine, key, self.place)
        assert self._file is not None
        return FileLock(self._file.parent / f"{key}.lock", key, self.place)


class FileCells(Cells):
    """Texts in files of a directory that only this user can read (mode 0600)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"the directory {folder}")
        self._folder = folder

    def get(self, key: str) -> str | None:
        try:
            return self._path(key).read_text("utf-8")
        except FileNotFoundError:
            return None

    def set(self, key: str, text: str) -> None:
        self._make()
        # mkstemp gives mode 0600.
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=f".{key}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def lock(self, key: str) -> FileLock | EngineLock:
        with contextlib.suppress(OSError):  # the lock says it
            self._make()
        return FileLock(self._path(key).with_suffix(".lock"), key, self.place)

    def _make(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class FileLock(LockFile):
    """``flock`` on a file that is never deleted; the kernel releases it when its holder ends, even after SIGKILL.

    :param path: the file.
    """

    def __init__(self, path: Path, key: str, place: str) -> None:
        super().__init__(key)
        self.path = str(path)
        self.fingerprint = fingerprint("dagster", key)
        self._place = place

    def check(self) -> None:
        """Check that the lock is held.

        :raises StoreUnavailable: the file was replaced in the meantime.
        """
        if self._descriptor is None or not self._is_file(self._descriptor):
            raise StoreUnavailable(
                f"The lock file {self.path} was replaced during a renewal of the Intergiro session. Nothing "
                "further was requested from the bank; the step can be retried. Never delete the file."
            )

    def keep(self) -> None:
        """Do nothing: this lock has no time limit."""

    def _is_file(self, descriptor: int) -> bool:
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return os.path.samestat(os.fstat(descriptor), found)

    def _open_file(self) -> int | None:
        descriptor = super()._open_file()
        if descriptor is None:
            raise StoreUnavailable(
                f"The lock file {self.path} cannot be opened, so the Intergiro session in {self._place} is not "
                "renewed. Nothing was requested from the bank; the step can be retried. Let this user write there."
            )
        return descriptor


def open_cells(session_store: str | None, instance: DagsterInstance | None) -> Cells:
    """Return where the session is kept.

    :param session_store: the setting: None, ``file:///…`` or ``postgresql://…``.
    :param instance: the Dagster instance; None outside of Dagster.
    :raises IntergiroValueError: the setting cannot work.
    """
    if session_store:
        scheme = session_store.partition("://")[0].partition("+")[0]
        if scheme == "file":
            path = Path(unquote(urlsplit(session_store).path))
            if path.is_absolute() and urlsplit(session_store).netloc in ("", "localhost"):
                return FileCells(path)
        elif scheme in ("postgresql", "postgres"):
            from dagster_intergiro.postgres import TableCells

            return TableCells(session_store)
        raise IntergiroValueError(
            f"`session_store` begins with {scheme!r}; it has to be file:///an/absolute/directory or "
            "postgresql://user:password@host/database, or be left out for the storage of the Dagster instance."
        )
    if instance is None or internals.is_temporary(instance):
        return FileCells(state_directory())
    return InstanceCells(instance)


def state_directory() -> Path:
    """Return the state directory of this user, for sessions that no Dagster instance stores."""
    home = os.environ.get("XDG_STATE_HOME") or ""
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "dagster-intergiro"


def _unfit(why: str) -> IntergiroValueError:
    return IntergiroValueError(
        f"The Intergiro session cannot be kept here: {why}. Nothing was requested from the bank. Set `session_store` "
        "of IntergiroResource to postgresql://user:password@host/database (from an EnvVar), or, where all runs share "
        "one machine, to file:///an/absolute/directory."
    )
