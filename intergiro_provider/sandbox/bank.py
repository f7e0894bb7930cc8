# SPDX-License-Identifier: Apache-2.0
"""The state of the bank: settings, sessions, payments, consents, data and time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from operator import itemgetter
from typing import Any

from intergiro_provider.sandbox.consents import Consents
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.payments import Payments
from intergiro_provider.sandbox.sessions import Sessions
from intergiro_provider.sandbox.settings import DATA_SETTINGS, Settings, parse_now

APIS = ("v1", "v3")

_MOMENT: ContextVar[float | None] = ContextVar("moment", default=None)
"""The due time of a late action, while it runs; None: the current time."""


class Bank:
    """The state of the bank.

    :param clock: returns epoch seconds; `advance` moves the bank's time ahead of it.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._ahead = clock, 0.0
        self.initial = self.settings = settings
        self.counters = Counters()
        self.sessions = Sessions(lambda: self.settings, self.counters, self.now)
        self._begin()

    def _begin(self) -> None:
        self.consents = Consents(lambda: self.settings, self.now)
        self._later: list[tuple[float, Callable[[], Awaitable[object]]]] = []
        self.payments = Payments(lambda: self.settings, self.counters, self.consents, self.now)
        moment, self._began = parse_now(self.settings.now), self.now()
        self.data = {api: Data(api, self.settings, moment) for api in APIS}
        if self.settings.prepare:
            self.data["v3"].transactions.prepare()

    def now(self) -> float:
        """The bank's time, epoch seconds."""
        moment = _MOMENT.get()
        return self._clock() + self._ahead if moment is None else moment

    def advance(self, seconds: float) -> None:
        """Move the bank's clock forward."""
        self._ahead += seconds

    async def later(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        """Schedule an action after this number of seconds. It runs before the next request, with its due time."""
        self._later.append((self.now() + seconds, act))
        await self.catch_up()

    async def catch_up(self) -> None:
        """Run the actions that are due, each with its due time."""
        now = self.now()
        while self._later and (due := min(self._later, key=itemgetter(0)))[0] <= now:
            self._later.remove(due)
            self._settle(due[0])
            token = _MOMENT.set(due[0])
            try:
                await due[1]()
            finally:
                _MOMENT.reset(token)
        self._settle(now)

    def _settle(self, moment: float) -> None:
        for data in self.data.values():
            data.settle(moment - self._began)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change settings, and generate the data again if one of them describes the data.

        :raises SettingsError: a setting is not valid; nothing was changed.
        """
        self.settings = self.settings.changed(changes)
        if DATA_SETTINGS & set(changes):
            self._begin()

    def reset(self) -> None:
        """Reset settings, data, sessions, blocks, counters and time."""
        self.settings, self._ahead = self.initial, 0.0
        self.sessions.forget()
        self.reset_counters()
        self._begin()

    def reset_counters(self) -> None:
        """Set all counters to zero."""
        self.counters = self.sessions.counters = self.payments.counters = Counters()
