# SPDX-License-Identifier: Apache-2.0
"""Timings for tests with one renewing process, without the waits for other processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from intergiro_provider.session.timings import Timings


@dataclass(frozen=True)
class Alone(Timings):
    """Limits that an overloaded machine keeps, and waits that are too short for mutual exclusion."""

    call: float = 30.0
    lease_write: float = math.inf
    lease_round: float = 60.0
    settle_lease: float = 0.02
    lock_check: float = 60.0
    critical: float = 60.0
    takeover: float = 25.0
    # Not 0, because tests count these waits.
    settle_session: float = 0.3
    wait: float = 300.0
    persist: float = 60.0
    repeat: float = 0.1
    reserve: float = 4.0
    poll: float = 0.05

    def __post_init__(self) -> None:
        """Skip the checks, which require mutual exclusion."""


ALONE = Alone()
