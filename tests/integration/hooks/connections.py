# SPDX-License-Identifier: Apache-2.0
"""Hooks on connections of their own: what the tests of the hook share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.timings import Timings

TRANSACTION = "/v3/transactions"
Connect = Callable[..., IntergiroHook]

QUICK = replace(
    Timings(),
    call=2.0,
    lease_round=0.4,
    lease_write=0.4,
    settle_lease=0.5,
    settle_session=2.5,
    critical=15.0,
    repeat=0.3,
    reserve=3.0,
)
"""Nobody else renews in these tests: the waits for rivals may be short."""


def again(hook: IntergiroHook, method: str = "GET") -> IntergiroHook:
    """Another hook on the same connection, as another task would have."""
    return IntergiroHook(hook.intergiro_conn_id, method=method)
