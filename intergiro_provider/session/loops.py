# SPDX-License-Identifier: Apache-2.0
"""To which event loop a thread of the triggerer belongs, as Airflow 3.0 to 3.2 have to be told.

There a thread reaches Variables and connections through asgiref's ``async_to_sync``, which finds the triggerer's loop
in a thread-local that asgiref's own threads alone have. Without it the exchange runs in another loop, on streams of the
triggerer's: it hangs, and whoever speaks next gets somebody else's answer. Other versions do not look at it.
"""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from typing import Any

try:
    from asgiref.sync import SyncToAsync

    _local: Any = SyncToAsync.threadlocal
except (ImportError, AttributeError):  # an Airflow that works otherwise
    _local = None


def loop_of_this_thread() -> AbstractEventLoop | None:
    """The event loop that this thread works for; None if it works for none."""
    if getattr(_local, "main_event_loop_pid", os.getpid()) != os.getpid():
        return None
    loop: AbstractEventLoop | None = getattr(_local, "main_event_loop", None)
    return loop


def work_for(loop: AbstractEventLoop | None) -> None:
    """Have this thread, which somebody else has started, work for this event loop."""
    if _local is not None and loop is not None:
        _local.main_event_loop, _local.main_event_loop_pid = loop, os.getpid()
