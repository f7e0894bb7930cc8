# SPDX-License-Identifier: Apache-2.0
"""The worker threads of a pull."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from intergiro_provider.pull.windows import Window, Windows


class Workers:
    """Threads that pull windows until none is left.

    :param pull_window: pulls one window to its end.
    :param on_failure: called after `pull_window` has raised an exception.
    :param size: the number of threads.
    """

    def __init__(
        self, windows: Windows, pull_window: Callable[[Window], None], on_failure: Callable[[], None], size: int
    ) -> None:
        self._windows = windows
        self._pull_window = pull_window
        self._on_failure = on_failure
        self._size = size
        self._changed = threading.Condition()
        self._running = 0
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Pull all windows, or until :meth:`stop`; raise the first exception of a worker."""
        self._running = self._size
        for number in range(self._size):
            context = contextvars.copy_context()
            threading.Thread(
                target=context.run, args=(self._work,), name=f"intergiro-pull-{number}", daemon=True
            ).start()
        with self._changed:
            # The thread that waits here also runs Airflow's signal handlers, for a timeout or the end of the task.
            while self._running and not self._stopped:
                self._changed.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let :meth:`run` return at once. A worker ends when the request that it waits for has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait for all workers to end, at most this long; return whether they have ended."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _work(self) -> None:
        try:
            while (window := self._windows.take()) is not None:
                self._pull_window(window)
                self._windows.end(window)
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            self._on_failure()
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
