# SPDX-License-Identifier: Apache-2.0
"""The metrics of a session, sent where Airflow sends its own metrics."""

from __future__ import annotations

from datetime import timedelta

PREFIX = "intergiro.session."


class AirflowMetrics:
    """Counters and timers below ``intergiro.session``, tagged with the session's Variable.

    :param variable: name of the session's Variable.
    """

    def __init__(self, variable: str) -> None:
        self._tags = {"session": variable}

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        from airflow.providers.common.compat.sdk import Stats

        Stats.incr(PREFIX + name, number, tags=self._tags)

    def time(self, name: str, seconds: float) -> None:
        """Add to a timer."""
        from airflow.providers.common.compat.sdk import Stats

        Stats.timing(PREFIX + name, timedelta(seconds=seconds), tags=self._tags)
