# SPDX-License-Identifier: Apache-2.0
"""The write-ahead record of a payment: one JSON file, durable before the request leaves, and the audit record after.

States: ``planned`` → ``sent`` → ``confirmed`` | ``refused`` | ``unknown``. A record that says ``sent`` belongs to a
request whose outcome nobody has written down: its process was killed, or is still waiting.

Two processes that work on one payment exclude each other: every write names the revision that it replaces. On a local
file system a lock on the directory makes that strict. On an object store, where only the creation of a file is strict,
each revision after the first is a file of its own, beside a copy of the newest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import Directory

VERSION = 1
OPEN = ("sent", "unknown")
"""States in which the bank may have carried the payment out."""


class Record:
    """The record of one payment, or of one bulk payment with all its batches.

    :param directory: where records lie; None: nothing is kept beyond this object.
    :param name: the payment's, see :func:`.keys.record_name`.
    :param now: the clock.
    """

    def __init__(self, directory: Directory | None, name: str, now: Callable[[], datetime] | None = None) -> None:
        self._directory, self.name, self._file = directory, name, f"payment-{name}.json"
        self._now = now or (lambda: datetime.now(UTC))
        self.content: dict[str, Any] = {}
        """What the record holds; empty if there is none."""
        if directory is not None:
            directory.make()
            self.content = self._load()

    def __str__(self) -> str:
        return self._file if self._directory is None else f"{self._directory}/{self._file}"

    @property
    def is_kept(self) -> bool:
        """Whether a later attempt finds this record."""
        return self._directory is not None

    @property
    def state(self) -> str:
        """The payment's state; empty if there is no record."""
        return str(self.content.get("state", ""))

    def save(self, **changes: Any) -> None:
        """Change fields and make the record durable.

        :raises IntergiroError: another process has changed it meanwhile.
        :raises StorageError: it could not be written; nothing may be sent then.
        """
        revision = self.content.get("revision", 0)
        content = {
            **self.content, **changes, "version": VERSION, "revision": revision + 1, "written_at": self.time(),
            "provider_version": __version__,
        }  # fmt: skip
        if self._directory is not None:
            self._write(self._directory, revision, json.dumps(content, indent=1).encode())
        self.content = content

    def time(self) -> str:
        """The present, as a record holds times."""
        return self._now().isoformat(timespec="milliseconds")

    def _write(self, directory: Directory, revision: int, content: bytes) -> None:
        temporary = f".{self._file}.tmp"
        if directory.local:
            with directory.lock():
                if self._load().get("revision", 0) != revision:
                    raise self._taken()
                directory.replace(self._file, content, temporary)
            return
        try:
            directory.write_new(self._revision(revision + 1), content)
        except FileExistsError:
            raise self._taken() from None
        if revision:
            directory.replace(self._file, content, temporary)

    def _taken(self) -> IntergiroError:
        return IntergiroError(
            f"Another process works on the same payment: it has changed {self}. This one has sent nothing since, and "
            "the task can be retried. Give each payment its own `payment_key` or task."
        )

    def _revision(self, number: int) -> str:
        """Name the file of a revision on an object store."""
        return self._file if number == 1 else f"{self._file}.{number}"

    def _load(self) -> dict[str, Any]:
        directory = self._directory
        stored = directory.read(self._file) if directory else None
        if directory is None or stored is None:
            return {}
        content = self._read(stored)
        # The copy may be older than the newest revision: its process was killed, or another one overtook it.
        while not directory.local and (newer := directory.read(self._revision(content["revision"] + 1))) is not None:
            content = self._read(newer)
        return content

    def _read(self, stored: bytes) -> dict[str, Any]:
        content: Any = None
        with suppress(ValueError):
            content = json.loads(stored)
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise IntergiroValueError(
                f"{self} is not a payment record of this version. Nothing was sent. Look at the file: as long as it "
                "cannot be read, nobody knows whether the payment was made."
            )
        return content


def parsed(moment: Any) -> datetime | None:
    """Read a time of a record or of the bank; None if it is not one."""
    try:
        value = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def last_under_way(attempts: Iterable[Mapping[str, Any]], began: datetime) -> datetime:
    """Return when the newest of these requests may last have been on its way.

    A request may leave long after its record, for instance after a login. One whose end nobody wrote down belongs to a
    process that was killed before this one began.

    :param began: when this process began with the payment.
    """
    return max((parsed(attempt.get("ended_at")) or began for attempt in attempts), default=began)
