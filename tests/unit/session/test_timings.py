# SPDX-License-Identifier: Apache-2.0
"""Times that must fit each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider.session.timings import Timings


def test_a_login_must_still_be_in_time_after_both_waits() -> None:
    """Else every renewal whose session has ended would settle, run out of time, and start again, until its deadline."""
    slow = Timings(settle_session=25.0, reserve=10.0, critical=40.0)
    with pytest.raises(ValueError, match="critical > settle_lease"):
        replace(slow, critical=36.0)
