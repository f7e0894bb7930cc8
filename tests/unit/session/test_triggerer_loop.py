# SPDX-License-Identifier: Apache-2.0
"""Threads of a triggerer find its event loop as Airflow 3.0 to 3.2 require."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from uuid import uuid4

from asgiref.sync import async_to_sync, sync_to_async

from intergiro_provider.session.driver import SharedSession
from intergiro_provider.session.effects import Renewer, Slot
from intergiro_provider.triggers.polling import in_thread
from tests.unit.session.memory import QUICK, MemoryStore, PlainBank


async def this_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


class AirflowsStore(MemoryStore):
    """Reads through asgiref, as Airflow's Variables do in such a triggerer."""

    def __init__(self) -> None:
        super().__init__(uuid4().hex)
        self.loops: dict[str, Any] = {}

    def read(self, slot: Slot) -> Any:
        self.loops[threading.current_thread().name] = async_to_sync(this_loop)()
        return super().read(slot)


def renew(store: AirflowsStore) -> None:
    SharedSession(store, PlainBank(), Renewer("k", name="me"), QUICK).current()


def test_a_poll_and_the_renewal_that_it_needs() -> None:
    store = AirflowsStore()

    async def triggerer() -> None:
        assert await in_thread("bank", async_to_sync(this_loop)) is asyncio.get_running_loop()
        await in_thread("bank", lambda: renew(store))
        assert store.loops == {"intergiro-renewal": asyncio.get_running_loop()}

    asyncio.run(triggerer())


def test_a_renewal_in_somebody_elses_trigger() -> None:
    store = AirflowsStore()

    async def triggerer() -> None:
        await sync_to_async(renew, thread_sensitive=False)(store)
        assert store.loops == {"intergiro-renewal": asyncio.get_running_loop()}

    asyncio.run(triggerer())


def test_a_renewal_in_a_task_works_for_no_loop() -> None:
    store = AirflowsStore()
    renew(store)
    [loop] = store.loops.values()
    assert loop.is_closed(), "it was made for this one call"
