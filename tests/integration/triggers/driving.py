# SPDX-License-Identifier: Apache-2.0
"""Triggers run in an event loop of the test's, which says what happens at the bank whenever the trigger sleeps."""

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
    """What the triggers' module knows as `asyncio`: its sleeps take no time, and are recorded."""

    to_thread = staticmethod(asyncio.to_thread)

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.steps: list[Step] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.steps:
            raise asyncio.CancelledError  # as a triggerer ends a trigger
        await asyncio.to_thread(self.steps.pop(0))

    def drive(self, trigger: _Trigger, *steps: Step) -> list[Any]:
        """Run the trigger to its end, or until it sleeps once more than there are steps; return its events."""
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
    """A step in which nothing happens."""
