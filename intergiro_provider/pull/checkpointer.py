# SPDX-License-Identifier: Apache-2.0
"""When a checkpoint is written, and which attempt may resume from it.

Airflow's state of the task instance (:class:`StateStore`) names the pull, and the fingerprint of its request. An
attempt with another request starts from the beginning. So does one whose checkpoint, or a part in it, is missing.

A part is finished before a checkpoint names it. A checkpoint is written every few seconds, and less often in a long
pull. Each checkpoint ends the open parts, and so does a failure. So a killed attempt loses its last seconds, or at most
the last twentieth of its time. A failed attempt loses the page at which it failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from intergiro_provider.pull.checkpoint import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from intergiro_provider.pull.target import Target

STATE_KEY = "intergiro_pull"
"""The key in the task instance's state, under which the pull is named."""

INTERVAL = 10.0
"""Seconds between two checkpoints at the beginning of a pull."""
SHARE = 0.05
"""Later, the time between two checkpoints, as a share of the time that the pull has taken."""
MAX_AGE = timedelta(hours=24)
"""A pull that began earlier is not resumed: its records may have changed at the bank."""


class StateStore(Protocol):
    """What Airflow stores for a task instance across its attempts: since 3.3, ``context["task_state_store"]``."""

    def get(self, key: str, /) -> Any:
        """Return the value, or None."""

    def set(self, key: str, value: Any, /) -> None:
        """Store a value that JSON can hold."""

    def delete(self, key: str, /) -> None:
        """Delete the key, if it exists."""


class Checkpointer:
    """Finds, writes and deletes the checkpoints of one pull. If the store fails, the pull continues.

    :param store: the state of the task instance.
    :param fingerprint: the fingerprint of the request.
    """

    def __init__(
        self, store: StateStore, fingerprint: str, log: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fingerprint = fingerprint
        self.saved: Checkpoint | None = None
        """The last checkpoint of this attempt."""
        self._store = store
        self._log = log
        self._clock = clock
        self._began = self._saved_at = clock()
        self._saving = threading.Lock()
        self._requested = False
        self._enabled = True
        self._stored_pull_id: str | None = None
        """The pull that the state names."""

    def period(self) -> float:
        """Return how many seconds may pass between two checkpoints now."""
        return max(INTERVAL, SHARE * (self._clock() - self._began))

    def now(self) -> float:
        """Return the time, for :meth:`is_due`."""
        return self._clock()

    def is_due(self, since: float | None = None) -> bool:
        """Return whether it is time for a checkpoint.

        :param since: count from this time; None: from the last checkpoint.
        """
        return self._enabled and self._clock() - (self._saved_at if since is None else since) >= self.period()

    def find(self, target: Target) -> Checkpoint | None:
        """Return the checkpoint of an earlier attempt, if this one may resume from it."""
        try:
            stored = self._store.get(STATE_KEY)
        except Exception as error:
            self._disable("read", error)
            return None
        if not isinstance(stored, dict) or not isinstance(stored.get("pull_id"), str):
            return None
        self._stored_pull_id = stored["pull_id"]
        if stored.get("fingerprint") != self.fingerprint:
            self._log.info("The earlier attempt made a different request, so this attempt starts from the beginning.")
            return None
        checkpoint = read_checkpoint(target.read_checkpoint(stored["pull_id"]))
        if checkpoint is None or checkpoint.fingerprint != self.fingerprint or not checkpoint.parts:
            return None
        if not checkpoint.can_be_resumed:
            return None
        if datetime.now(UTC) - checkpoint.began > MAX_AGE:
            self._log.info(
                "The first attempt began at %s, which is too long ago, so this attempt starts from the beginning.",
                checkpoint.began,
            )
            return None
        return checkpoint

    def save(self, target: Target, make: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint. If another thread is writing one, that thread writes one more.

        :param make: returns what has finished now.
        """
        self._requested = True
        while self._enabled and self._requested and self._saving.acquire(blocking=False):
            try:
                self._requested = False
                self._save(target, make())
            finally:
                self._saving.release()

    def save_last(self, target: Target, make: Callable[[], Checkpoint], wait: float) -> None:
        """Write the checkpoint with which an attempt ends.

        :param wait: seconds to wait for a thread that is writing one.
        """
        if self._enabled and self._saving.acquire(timeout=wait):
            try:
                self._save(target, make())
            finally:
                self._saving.release()

    def _save(self, target: Target, checkpoint: Checkpoint) -> None:
        self._saved_at = self._clock()
        try:
            target.write_checkpoint(checkpoint)
        except OSError as error:
            self._log.warning("The checkpoint of the pull could not be written (%s).", type(error).__name__)
            return
        try:
            if self._stored_pull_id != checkpoint.pull_id:
                self._store.set(STATE_KEY, {"fingerprint": self.fingerprint, "pull_id": checkpoint.pull_id})
                self._stored_pull_id = checkpoint.pull_id
        except Exception as error:
            self._disable("write", error)
            return
        self.saved = checkpoint

    def close(self, wait: float) -> None:
        """Write no more checkpoints.

        :param wait: seconds to wait for a thread that is writing one.
        """
        if self._saving.acquire(timeout=wait):
            self._enabled = False
            self._saving.release()

    def forget(self) -> None:
        """Delete the state, so that no later attempt resumes from a checkpoint."""
        if self._stored_pull_id is None:
            return
        try:
            self._store.delete(STATE_KEY)
        except Exception as error:
            self._disable("clear", error)

    def _disable(self, operation: str, error: Exception) -> None:
        self._enabled = False
        self._log.warning(
            "Could not %s the task's state (%s). If this attempt fails, the next one starts from the beginning.",
            operation, type(error).__name__,
        )  # fmt: skip
