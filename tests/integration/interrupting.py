# SPDX-License-Identifier: Apache-2.0
"""Actions during a call of this process, when something has happened and not after some time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scripts.services import wait_until


def when(happened: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    """Start a thread that does this once that has happened; join it afterwards."""

    def work() -> None:
        wait_until(lambda: bool(happened()))
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextmanager
def interrupted_when(happened: Callable[[], object], error: type[BaseException]) -> Iterator[None]:
    """Raise this error in the main thread once that has happened, as Airflow's `execution_timeout` does."""

    def time_is_up(signum: int, frame: object) -> None:
        raise error

    former = signal.signal(signal.SIGALRM, time_is_up)
    thread = when(happened, lambda: os.kill(os.getpid(), signal.SIGALRM))
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, former)
