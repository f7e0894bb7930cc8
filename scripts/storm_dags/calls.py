# SPDX-License-Identifier: Apache-2.0
"""The work of each task in a storm: call the bank several times, and measure each call."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

ENDPOINTS = ("accounts", "transactions")


def call_bank(conn_id: str, number: int, calls: int, seconds: float) -> dict[str, Any]:
    """Call the bank so many times, spread over so many seconds, and return what there is to measure.

    `calls` holds, for each call, the epoch seconds at which it began, the seconds it took, and whether it met a 401
    and so had to wait for another token.
    """
    from intergiro_provider.hooks.intergiro import IntergiroHook

    hook = IntergiroHook(conn_id)
    measured = []
    for place in range(calls):
        if place:
            time.sleep(seconds / (calls - 1))
        at, began = time.time(), time.monotonic()
        response = hook.run(ENDPOINTS[(number + place) % len(ENDPOINTS)], {"limit": 1})
        renewed = any(former.status_code == 401 for former in response.history)
        measured.append([round(at, 3), round(time.monotonic() - began, 4), renewed])
    # What tells the hosts apart: the directory of their lock files.
    return {"host": os.path.basename(tempfile.gettempdir()), "process": os.getpid(), "calls": measured}


class BankTrigger(BaseTrigger):
    """The same in the triggerer, in a thread, as the hook asks for."""

    def __init__(self, conn_id: str, number: int, calls: int, seconds: float) -> None:
        """Take what `call_bank` takes."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments: dict[str, Any] = {"conn_id": conn_id, "number": number, "calls": calls, "seconds": seconds}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make it again."""
        return f"{type(self).__module__}.{type(self).__qualname__}", dict(self.arguments)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Call the bank, and hand what was measured to the task; an error becomes its text."""
        try:
            # Not asyncio.to_thread: Airflow 3.0 to 3.2 need asgiref's threads.
            measured = await sync_to_async(call_bank, thread_sensitive=False)(**self.arguments)
        except Exception as error:
            measured = {"error": f"{type(error).__name__}: {error}"}
        yield TriggerEvent(measured)  # type: ignore[no-untyped-call]
