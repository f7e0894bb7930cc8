# SPDX-License-Identifier: Apache-2.0
"""How far a pull is, so that the next try of its task takes it up there.

Two notes make a checkpoint. In the pull's directory lies ``_checkpoint-<pull id>.json``: the windows, and of each the
parts that are durable and the record after which it goes on. In the state that Airflow keeps for a task instance
(:class:`StateStore`) lies which pull that is, and the fingerprint of what was asked for: a try that asks for something
else starts anew, as does one that finds a note or a part missing.

A part is durable before the note that names it. The note is taken again every few seconds, and more seldom in a long
pull, each time ending the parts that are open; an orderly failure ends them too. So a try that was killed costs its
last seconds, or the last twentieth of its time, and one that failed costs the page that it failed at.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import msgspec

from intergiro_provider import __version__
from intergiro_provider.pull.manifest import Part

STATE_KEY = "intergiro_pull"
"""Where the state of a task instance names the pull that can be taken up."""

EVERY = 10.0
"""Seconds between two notes, at the beginning of a pull."""
SHARE = 0.05
"""Of the time that the pull has taken, once that is longer."""
GOOD_FOR = timedelta(hours=24)
"""A note older than this is not used: what it has may have changed at the bank since."""
STILL_FILLING = timedelta(minutes=5)
"""Records may come into an interval until this long after its end; a window is over only then."""


class StateStore(Protocol):
    """What Airflow keeps for a task instance across its tries: from 3.3 on, ``context["task_state_store"]``."""

    def get(self, key: str, /) -> Any:
        """The value, or None."""

    def set(self, key: str, value: Any, /) -> None:
        """Store a value that JSON can carry."""

    def delete(self, key: str, /) -> None:
        """Remove it; fine if there is none."""


class WindowState(msgspec.Struct, frozen=True, kw_only=True):
    """One window: its bounds, what of it is durable, and how it goes on.

    :param start: first instant; None with ``end``: everything. :param end: the instant at which it has ended.
    :param ended: whether all of it has come. :param reached: up to where all records are in the parts.
    :param last_id: the record after which to go on; None: from the beginning.
    """

    start: datetime | None
    end: datetime | None
    may_be_cut: bool
    was_cut: bool
    ended: bool
    reached: datetime | None
    parts: tuple[Part, ...]
    first_id: str | int | None
    last_id: str | int | None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A pull as far as it has come.

    :param fingerprint: of what was asked for, see :func:`fingerprint`. :param saved_at: when it was like this.
    :param began: when its first try did.
    :param ordered: whether the list is asked for in the order of time.
    """

    version: int = 1
    pull_id: str
    fingerprint: str
    began: datetime
    saved_at: datetime
    ordered: bool
    windows: tuple[WindowState, ...]

    @property
    def parts(self) -> list[Part]:
        """What is durable."""
        return [part for window in self.windows for part in window.parts]

    def renamed(self, pull_id: str) -> Checkpoint:
        """The same, as another pull's."""

        def rename(window: WindowState) -> WindowState:
            parts = tuple(
                msgspec.structs.replace(part, path=part.path.replace(self.pull_id, pull_id)) for part in window.parts
            )
            return msgspec.structs.replace(window, parts=parts)

        return msgspec.structs.replace(self, pull_id=pull_id, windows=tuple(map(rename, self.windows)))

    def is_over(self, window: WindowState) -> bool:
        """Whether nothing can have come into a window since."""
        return window.ended and (window.end is None or window.end <= self.saved_at - STILL_FILLING)

    def to_json(self) -> bytes:
        """As it is stored."""
        return msgspec.json.encode(self)


def read_checkpoint(stored: bytes | None) -> Checkpoint | None:
    """Read what :meth:`Checkpoint.to_json` wrote; None for anything else."""
    try:
        checkpoint = msgspec.json.decode(stored or b"", type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return checkpoint if checkpoint.version == 1 else None


def fingerprint(*asked_for: Any) -> str:
    """A digest of everything on which the records of a pull and their form depend."""
    text = json.dumps([__version__, *asked_for], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Place(Protocol):
    """Where a checkpoint lies: the pull's :class:`~.target.Target`."""

    def checkpoint_of(self, pull_id: str) -> bytes | None:
        """The note of a pull; None if there is none."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the note of this pull."""


class Resume:
    """Finds, takes and forgets the checkpoints of one pull. No failure of a store fails the pull.

    :param store: the state of the task instance.
    :param asked_for: the fingerprint of the request.
    """

    def __init__(
        self, store: StateStore, asked_for: str, log: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fingerprint = asked_for
        self.saved: Checkpoint | None = None
        """The last one of this try that is there."""
        self._store = store
        self._log = log
        self._clock = clock
        self._began = self._saved_at = clock()
        self._saving = threading.Lock()
        self._wanted = False
        self._works = True
        self._named: str | None = None

    def period(self) -> float:
        """Seconds that may pass between two notes now."""
        return max(EVERY, SHARE * (self._clock() - self._began))

    def now(self) -> float:
        """A reading of the clock, for :meth:`due`."""
        return self._clock()

    def due(self, since: float | None = None) -> bool:
        """Whether it is time for a note. :param since: counted from this reading of the clock; None: from the last."""
        return self._works and self._clock() - (self._saved_at if since is None else since) >= self.period()

    def find(self, place: Place) -> Checkpoint | None:
        """The checkpoint of an earlier try, if this one may take it up."""
        try:
            named = self._store.get(STATE_KEY)
        except Exception as error:
            self._give_up("read", error)
            return None
        if not isinstance(named, dict) or not isinstance(named.get("pull_id"), str):
            return None
        self._named = named["pull_id"]
        if named.get("fingerprint") != self.fingerprint:
            self._log.info("An earlier try asked for something else; this one starts anew.")
            return None
        checkpoint = read_checkpoint(place.checkpoint_of(named["pull_id"]))
        if checkpoint is None or checkpoint.fingerprint != self.fingerprint or not checkpoint.parts:
            return None
        if any(
            window.parts and window.last_id is None and not checkpoint.is_over(window) for window in checkpoint.windows
        ):
            return None  # records without ids: there is no place to go on from
        if datetime.now(UTC) - checkpoint.began > GOOD_FOR:
            self._log.info("What earlier tries left began at %s, too long ago; this one starts anew.", checkpoint.began)
            return None
        return checkpoint

    def save(self, place: Place, make: Callable[[], Checkpoint]) -> None:
        """Take a note, unless somebody is at it, who then takes another.

        :param make: says how far the pull is.
        """
        self._wanted = True
        while self._works and self._wanted and self._saving.acquire(blocking=False):
            try:
                self._wanted = False
                self._save(place, make())
            finally:
                self._saving.release()

    def save_last(self, place: Place, make: Callable[[], Checkpoint], wait: float) -> None:
        """Take the note with which a try ends. :param wait: seconds, for somebody who is at it."""
        if self._works and self._saving.acquire(timeout=wait):
            try:
                self._save(place, make())
            finally:
                self._saving.release()

    def _save(self, place: Place, checkpoint: Checkpoint) -> None:
        self._saved_at = self._clock()
        try:
            place.save(checkpoint)
        except OSError as error:
            self._log.warning("Could not note how far the pull is (%s).", type(error).__name__)
            return
        try:
            if self._named != checkpoint.pull_id:
                self._store.set(STATE_KEY, {"fingerprint": self.fingerprint, "pull_id": checkpoint.pull_id})
                self._named = checkpoint.pull_id
        except Exception as error:
            self._give_up("write", error)
            return
        self.saved = checkpoint

    def close(self, wait: float) -> None:
        """Take no more notes. :param wait: seconds, for somebody who is at it."""
        if self._saving.acquire(timeout=wait):
            self._works = False
            self._saving.release()

    def forget(self) -> None:
        """Let no later try take anything up."""
        if self._named is None:
            return
        try:
            self._store.delete(STATE_KEY)
        except Exception as error:
            self._give_up("clear", error)

    def _give_up(self, what: str, error: Exception) -> None:
        self._works = False
        self._log.warning(
            "Could not %s the task's state (%s): should this try fail, the next one starts anew.",
            what, type(error).__name__,
        )  # fmt: skip
