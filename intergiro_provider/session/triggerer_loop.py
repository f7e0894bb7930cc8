# SPDX-License-Identifier: Apache-2.0
"""Bind a thread to the event loop of the triggerer. Airflow 3.0 to 3.2 need this.

In these versions a thread reads Variables and connections through asgiref's ``async_to_sync``. It finds the
triggerer's loop in a thread-local, which only asgiref's own threads have. In other threads the exchange would run in
another loop on the triggerer's streams: it hangs, and the next reader gets the wrong response. Other versions of
Airflow ignore the thread-local.
"""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from typing import Any

try:
    from asgiref.sync import SyncToAsync

    _local: Any = SyncToAsync.threadlocal
except (ImportError, AttributeError):  # an Airflow without asgiref
    _local = None


def loop_of_this_thread() -> AbstractEventLoop | None:
    """Return the event loop to which this thread is bound; None if there is none."""
    if getattr(_local, "main_event_loop_pid", os.getpid()) != os.getpid():
        return None
    loop: AbstractEventLoop | None = getattr(_local, "main_event_loop", None)
    return loop


def work_for(loop: AbstractEventLoop | None) -> None:
    """Bind this thread to an event loop.

    :param loop: None: do nothing.
    """
    if _local is not None and loop is not None:
        _local.main_event_loop, _local.main_event_loop_pid = loop, os.getpid()
