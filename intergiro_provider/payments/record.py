# SPDX-License-Identifier: Apache-2.0
"""The write-ahead record of a payment: one JSON file, written durably before the request, and kept as audit record.

States: ``planned`` → ``sent`` → ``confirmed`` | ``rejected`` | ``refused`` | ``unknown``. ``refused``: the bank
returned an error status, and made no payment. ``rejected``: the bank made a payment, and then rejected it. ``sent``:
no outcome is stored. The process was killed, or waits for the response or for a person's consent.

If two processes change one record, one of them fails: each write names the revision that it replaces. Object stores
have no locks, and locks on a network file system may work only within one host. Creating a file is exclusive
everywhere, so each revision after the first is a file of its own, beside a copy of the newest revision.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError

if TYPE_CHECKING:
    from intergiro_provider.pull.directory import Directory

VERSION = 1
NEEDS_CONSENT = "consent required"
"""Outcome of a request that the bank may carry out later, when a person gives consent."""
UNRESOLVED = ("sent", "unknown")
"""States in which the bank may have carried the payment out."""
LISTS = {"payment": "attempts", "bulk": "batches", "bulk plan": "items"}
"""The list that each kind of record holds."""


class Record:
    """The record of one payment, or of one bulk payment with all its batches.

    :param directory: the directory of the file; None: the content is kept in memory only.
    :param name: the payment's name, see :func:`.keys.record_name`.
    :param now: returns the current time; None: the system clock.
    :raises IntergiroValueError: the file is not a complete record.
    :raises StorageError: the file cannot be read.
    """

    def __init__(self, directory: Directory | None, name: str, now: Callable[[], datetime] | None = None) -> None:
        self._directory, self.name, self._file = directory, name, f"payment-{name}.json"
        self._now = now or (lambda: datetime.now(UTC))
        self.content: dict[str, Any] = {}
        """The fields of the record; empty if there is none."""
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
        """Change fields, and write the record durably.

        :raises IntergiroError: another process has changed the record. Retriable.
        :raises StorageError: the record could not be written. No request may be sent then.
        """
        revision = self.content.get("revision", 0)
        content = {
            **self.content, **changes, "version": VERSION, "revision": revision + 1, "written_at": self.time(),
            "provider_version": __version__,
        }  # fmt: skip
        if self._directory is not None:
            self._write(self._directory, revision, json.dumps(content, indent=1, default=str).encode())
        self.content = content

    def time(self) -> str:
        """Return the current time in ISO 8601, as the record stores times."""
        return self._now().isoformat(timespec="milliseconds")

    def _write(self, directory: Directory, revision: int, content: bytes) -> None:
        temporary = f".{self._file}.{uuid.uuid4().hex}.tmp"
        try:
            directory.write_new(self._revision_file(revision + 1), content, temporary)
        except FileExistsError:
            raise self._changed_by_another() from None
        if revision:
            directory.replace(self._file, content, temporary)

    def _changed_by_another(self) -> IntergiroError:
        return IntergiroError(
            f"Another process works on the same payment: it has changed {self}. This task has sent no request since, "
            "and can be retried. If two tasks use one `payment_key`, give each its own."
        )

    def _revision_file(self, number: int) -> str:
        return self._file if number == 1 else f"{self._file}.{number}"

    def _load(self) -> dict[str, Any]:
        directory = self._directory
        stored = directory.read(self._file) if directory else None
        if directory is None or stored is None:
            return {}
        content = self._decode(stored)
        # The copy can be older than the newest revision: a process was killed between its two writes, or overtaken.
        while (newer := directory.read(self._revision_file(content["revision"] + 1))) is not None:
            content = self._decode(newer)
        return content

    def _decode(self, stored: bytes) -> dict[str, Any]:
        content: Any = None
        with suppress(ValueError):
            content = json.loads(stored)
        if not isinstance(content, dict) or content.get("version") != VERSION or not _is_complete(content):
            raise IntergiroValueError(
                f"{self} is not a complete payment record of version {VERSION}. Nothing was sent now, but an earlier "
                "task may have paid. Restore the file. If you cannot, look for the payment in the Intergiro customer "
                "portal. If it is there, mark this task as success. If not, delete all files of the record and clear "
                "this task."
            )
        return content


def _is_complete(content: Mapping[str, Any]) -> bool:
    """Return whether the fields are there without which a payment could be made twice."""
    required = {"revision": int, "key": str, "sha256": str, LISTS.get(str(content.get("kind")), "kind"): list}
    return all(isinstance(content.get(name), kind) for name, kind in required.items())


def parse_time(text: Any) -> datetime | None:
    """Return a time of a record or of the bank; None if the value is not an ISO 8601 time. Without an offset: UTC."""
    try:
        value = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def last_in_flight(attempts: Iterable[Mapping[str, Any]], began: datetime) -> datetime:
    """Return the latest time at which one of these requests may have been in flight.

    A request may be sent long after its record was written, for example after a login. If an attempt has no stored
    end, its process was killed before this one began. If it needed consent, it may have been carried out until then.

    :param began: when this process began to work on the payment.
    """
    ends = (began if each.get("outcome") == NEEDS_CONSENT else parse_time(each.get("ended_at")) for each in attempts)
    return max((end or began for end in ends), default=began)
