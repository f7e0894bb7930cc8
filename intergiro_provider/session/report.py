# SPDX-License-Identifier: Apache-2.0
"""Report a renewal: one log line and metrics, without tokens."""

from __future__ import annotations

import contextlib
import logging
from typing import Protocol

from intergiro_provider.exceptions import LoginBudgetExhausted, ShadowedError
from intergiro_provider.session.effects import Renewed

log = logging.getLogger("intergiro_provider.session")


class Metrics(Protocol):
    """Receives counters and timers; see :class:`~intergiro_provider.hooks.metrics.AirflowMetrics`."""

    def count(self, name: str, number: int = 1) -> None: ...

    def time(self, name: str, seconds: float) -> None: ...


class NoMetrics:
    """Discards all metrics."""

    def count(self, name: str, number: int = 1) -> None: ...

    def time(self, name: str, seconds: float) -> None: ...


class Report:
    """The report of one renewal.

    :param variable: the session's Variable.
    :param who: host and process that renews.
    """

    def __init__(self, metrics: Metrics, variable: str, who: str) -> None:
        self._metrics = metrics
        self._variable = variable
        self._who = who
        self.waited = False
        """Whether another process was renewing, or may have been."""
        self.refused = 0
        """How many refreshes the bank has refused."""

    def ended(self, renewed: Renewed, took: float) -> None:
        """Report a renewal that produced a session.

        :param took: seconds that it took.
        """
        session = renewed.pair
        if renewed.shadowed:
            log.error(
                "The renewed Intergiro session (generation %d) could not be kept: its Variable %s is hidden by an "
                "environment variable or a secrets backend. Remove that: until then tasks that have to renew it fail. "
                "This task continues.",
                session.gen,
                self._variable,
            )
        elif not renewed.stored:
            log.warning(
                "The renewed Intergiro session (generation %d) could not be stored in time. This task continues with "
                "it; the other tasks log in once.",
                session.gen,
            )
        facts = (session.gen, self._who, took)
        if renewed.how == "logged_in":
            log.log(
                logging.WARNING if renewed.unexpected else logging.INFO,
                "Logged in to Intergiro, since %s: generation %d, by %s; the renewal took %.1f s.",
                renewed.why,
                *facts,
            )
        elif renewed.how == "refreshed":
            log.info("Refreshed the Intergiro session: generation %d, by %s; the renewal took %.1f s.", *facts)
        elif renewed.how == "alive":
            log.info(
                "The Intergiro session of generation %d is valid, although the bank refused a request.", session.gen
            )
        elif self.waited:
            log.info(
                "Another task has renewed the Intergiro session: generation %d; this one waited %.1f s.",
                session.gen,
                took,
            )
        else:
            log.debug("Using the Intergiro session of generation %d after %.1f s.", session.gen, took)
        with contextlib.suppress(Exception):
            self._measure(renewed, took)

    def failed(self, error: BaseException) -> None:
        """Report a renewal that produced no session."""
        if isinstance(error, (ShadowedError, LoginBudgetExhausted)):
            # A person has to act, even if the caller can work without a session.
            log.error("%s", error)
        with contextlib.suppress(Exception):
            self._metrics.count("failures")
            self._count_refused()

    def _measure(self, renewed: Renewed, took: float) -> None:
        if renewed.how in ("refreshed", "logged_in"):
            self._metrics.count("renewals")
            self._metrics.time("renewal_duration", took)
        if renewed.how == "logged_in":
            self._metrics.count("logins")
            if renewed.unexpected:
                self._metrics.count("unexpected_logins")
        if renewed.how == "found" and self.waited:
            self._metrics.time("wait", took)
        self._count_refused()

    def _count_refused(self) -> None:
        if self.refused:
            self._metrics.count("refused", self.refused)
