# SPDX-License-Identifier: Apache-2.0
"""Run triggers in the test's event loop, which changes the bank whenever the trigger sleeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import pytest

from intergiro_provider.triggers import intergiro as module

Step = Callable[[], object]


class _Trigger(Protocol):
    def run(self) -> AsyncIterator[Any]: ...


class Clock:
    """Replaces `asyncio` in the module of the triggers. Sleeps take no time, and are recorded."""

    to_thread = staticmethod(asyncio.to_thread)

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.steps: list[Step] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.steps:
            raise asyncio.CancelledError  # as the triggerer cancels a trigger
        await asyncio.to_thread(self.steps.pop(0))

    def drive(self, trigger: _Trigger, *steps: Step) -> list[Any]:
        """Run the trigger with one step per sleep, until it ends or there are no more steps. Return its events."""
        self.steps, self.slept = list(steps), []
        events: list[Any] = []

        async def run() -> None:
            async for event in trigger.run():
                events.append(json.loads(json.dumps(event.payload)))

        async def run_for_a_minute() -> None:
            await asyncio.wait_for(run(), 60)

        try:
            asyncio.run(run_for_a_minute())
        except asyncio.CancelledError:
            pass
        return events


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "asyncio", made)
    return made


def nothing() -> None:
    """Do nothing, as a step."""
