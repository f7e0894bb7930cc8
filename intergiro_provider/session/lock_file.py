# SPDX-License-Identifier: Apache-2.0
"""A lock for the processes of one host. It reduces the contention for the lease and the traffic to the store."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile

_open: set[int] = set()


def _close_in_child() -> None:
    # An open descriptor in the child would keep the lock after the parent has closed its own.
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)


class LockFile:
    """``flock`` on a file that is never deleted.

    The lease guarantees exclusion, not this lock. If the file cannot be opened, the process continues without it.

    :param name: what is locked, for example the name of a Variable.
    """

    def __init__(self, name: str) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.path = os.path.join(tempfile.gettempdir(), f"airflow-intergiro-{digest}.lock")
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; never waits."""
        descriptor = self._open_file()
        if descriptor is None:
            return True
        _open.add(descriptor)
        self._descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == os.stat(self.path).st_ino:
                return True
        except OSError:
            pass
        self.release()
        return False

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None and self._descriptor in _open:
            _open.discard(self._descriptor)
            # close() is not enough: a child that was just forked may still hold a copy of the descriptor.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
        self._descriptor = None

    def _open_file(self) -> int | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        # First without O_CREAT: in a sticky directory, Linux refuses O_CREAT for another user's file.
        for extra in (0, os.O_CREAT):
            try:
                return os.open(self.path, flags | extra, 0o644)
            except OSError:
                continue
        return None
