# SPDX-License-Identifier: Apache-2.0
"""The figures of a payments campaign, and the comparison of the bank's payments with Airflow's tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """The figures of one bank and its tasks.

    :param kills: number of kills, by step and by whether the payment has a record.
    :param failed_at_first: number of task instances that failed before any was cleared, by their error.
    :param twice: number of payments beyond those that were requested.
    :param missing_silently: number of payments that were not made although their tasks succeeded.
    :param missing_reported: number of payments that were not made and whose tasks failed.
    :param failed_at_end: number of task instances that are failed at the end, by their error.
    """

    title: str
    asked: int = 0
    attempts: int = 0
    kills: Counter[tuple[str, bool]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failed_at_first: Counter[str] = field(default_factory=Counter)
    cleared: int = 0
    made: int = 0
    twice: int = 0
    missing_silently: int = 0
    missing_reported: int = 0
    failed_at_end: Counter[str] = field(default_factory=Counter)
    logins: int = 0
    refreshes: int = 0
    refused: int = 0
    remarks: list[str] = field(default_factory=list)

    def compare(self, paid: list[dict[str, Any]], tasks: dict[str, list[str]], expected: dict[str, int]) -> None:
        """Compare the payments that the bank has made with those that were requested.

        :param paid: the bank's transactions, each with the payment's reference and its key.
        :param tasks: the states of the task instances of each reference.
        :param expected: how often each reference is to be paid.
        """
        made = Counter(row["reference"] for row in paid)
        for reference in expected.keys() | made.keys():
            wanted, number = expected.get(reference, 0), made[reference]
            self.twice += max(0, number - wanted)
            successful = tasks.get(reference, ["success"] * wanted).count("success")
            self.missing_silently += (silent := max(0, min(wanted, successful) - number))
            self.missing_reported += max(0, wanted - number) - silent
        keys = {row.get("request_id", row.get("correlation_id")) for row in paid}
        self.twice = max(self.twice, len(paid) - len(keys))
        self.asked, self.made = sum(expected.values()), len(paid)
