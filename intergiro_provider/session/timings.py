# SPDX-License-Identifier: Apache-2.0
"""The time limits of each step of a renewal, and the inequalities between them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """All times of the session protocol, in seconds.

    The lease is exclusive only if the inequalities below hold. The defaults suit a real deployment; tests shorten all
    times together.

    :param call: upper limit for a whole bank call.
    :param lease_write: upper limit until the lease write is acknowledged. Airflow's API client repeats a write after
        `[workers] execution_api_retry_wait_min`; a write that is acknowledged sooner was sent once. Infinite if
        Variables are written to the database directly.
    :param lease_round: upper limit from reading the lease until writing it is acknowledged.
    :param settle_lease: wait between writing the lease and reading it back.
    :param lock_check: upper limit for the check of the distributed lock, right before each bank call.
    :param critical: a bank call starts only within this time after the lease write was acknowledged.
    :param takeover: another process takes over a lease that it has seen unchanged for this time.
    :param settle_session: wait for another process's late write of a new token pair.
    :param wait: deadline of a whole renewal, up to its last entry into the critical section.
    :param persist: time after `critical` + `call` within which the write of a new session may start.
    :param store: upper limit for one Variable write, including the repetitions of the API client.
    :param repeat: wait before the only repetition of a refresh whose outcome is unknown.
    :param reserve: a login is entered in the history only if this much of `critical` is left.
    :param poll: pause between two reads of another process's session or lease; up to twice that with jitter.
    :param bank_pause: no task sends a request for this time after the bank was unavailable, if the bank named no time.
    :param refused_pause: a refused refresh token is not sent again within this time.
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
    bank_pause: float = 30.0
    refused_pause: float = 900.0

    def __post_init__(self) -> None:
        rules = {
            "settle_lease > lease_round": self.settle_lease > self.lease_round,
            "lease_write ≤ lease_round, or infinite": self.lease_write <= self.lease_round
            or math.isinf(self.lease_write),
            "takeover ≥ critical + lock_check + call + persist + store + 2 · lease_round": self.takeover
            >= self.critical + self.lock_check + self.call + self.persist + self.store + 2 * self.lease_round,
            "settle_session > call": self.settle_session > self.call,
            # Entering a login includes both waits; otherwise a process that has to wait could never log in.
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
        """Seconds after the acknowledged lease write within which the write of a new session may start."""
        return self.critical + self.call + self.persist
