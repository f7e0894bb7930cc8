# SPDX-License-Identifier: Apache-2.0
"""Timings for tests in which one process renews: they wait for no other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from intergiro_provider.session.timings import Timings


@dataclass(frozen=True, slots=True)
class Alone(Timings):
    """Limits that a busy machine keeps, and waits that are too short to exclude another process."""

    call: float = 10.0
    lease_write: float = math.inf
    lease_round: float = 5.0
    settle_lease: float = 0.02
    critical: float = 12.0
    takeover: float = 25.0
    # Not 0: tests count these waits.
    settle_session: float = 0.3
    wait: float = 60.0
    repeat: float = 0.1
    reserve: float = 4.0
    poll: float = 0.05

    def __post_init__(self) -> None:
        """Accept them, though they give no mutual exclusion."""


ALONE = Alone()
