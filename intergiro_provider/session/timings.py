# SPDX-License-Identifier: Apache-2.0
"""How long each step of a renewal may take, and what must hold between these times."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """All times of the session protocol, in seconds.

    Mutual exclusion through the lease rests on the inequalities asserted here; the defaults suit a real deployment,
    tests shrink them together.

    :param call: longest one bank call may take, all of it.
    :param lease_write: longest the lease write may take to be acknowledged. Airflow's API client repeats a write by
        itself after `[workers] execution_api_retry_wait_min`; one that came sooner belongs to the only copy.
        Infinite where Variables are written to the database directly.
    :param lease_round: longest from reading the lease to the acknowledgement of writing it.
    :param settle_lease: wait between writing the lease and reading it back.
    :param lock_check: longest that making sure of the distributed lock may take, right before each bank call.
    :param critical: a bank call starts only within this time after the lease write was acknowledged.
    :param takeover: how long a lease must be seen unchanged before its owner counts as dead.
    :param settle_session: how long to look for a late store of a rotation that may have happened elsewhere.
    :param wait: deadline of a whole renewal, up to its last entry into the critical section.
    :param persist: extra time after `critical` + `call` in which storing a new session may be started.
    :param store: longest one Variable write may take, the API client's own repetitions included.
    :param repeat: wait before the one repetition of a refresh whose outcome is unknown.
    :param reserve: a login is reserved only if this much of `critical` is left.
    :param poll: shortest pause between two looks at a session or a lease of somebody else; up to twice that.
    :param bank_verdict: how long "the bank is unavailable" holds for everybody if the bank did not say.
    :param refused_memo: how long a refused refresh token is not presented again.
    """

    call: float = 20.0
    lease_write: float = 0.8
    lease_round: float = 2.0
    settle_lease: float = 2.4
    lock_check: float = 2.0
    critical: float = 60.0
    takeover: float = 150.0
    settle_session: float = 25.0
    wait: float = 400.0
    persist: float = 20.0
    store: float = 40.0
    repeat: float = 3.0
    reserve: float = 10.0
    poll: float = 1.0
    bank_verdict: float = 30.0
    refused_memo: float = 900.0

    def __post_init__(self) -> None:
        rules = {
            "settle_lease > lease_round": self.settle_lease > self.lease_round,
            "lease_write ≤ lease_round, or infinite": self.lease_write <= self.lease_round
            or math.isinf(self.lease_write),
            "takeover ≥ critical + lock_check + call + persist + store + 2 · lease_round": self.takeover
            >= self.critical + self.lock_check + self.call + self.persist + self.store + 2 * self.lease_round,
            "settle_session > call": self.settle_session > self.call,
            # The time for entering a login runs from before both waits: else who has to settle never gets to log in.
            "critical > settle_lease + settle_session + 2 · poll + reserve": self.critical
            > self.settle_lease + self.settle_session + 2 * self.poll + self.reserve,
            "wait > takeover + settle_lease": self.wait > self.takeover + self.settle_lease,
            "reserve ≥ poll": self.reserve >= self.poll,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ValueError(f"These timings do not give mutual exclusion: {'; '.join(broken)}.")

    @property
    def persist_until(self) -> float:
        """Last moment to start storing a new session, in seconds after the lease write was acknowledged."""
        return self.critical + self.call + self.persist
