# SPDX-License-Identifier: Apache-2.0
"""Hooks on connections of their own: what the tests of the hook share."""

from __future__ import annotations

from collections.abc import Callable

from intergiro_provider.hooks.intergiro import IntergiroHook

TRANSACTION = "/v3/transactions"
Connect = Callable[..., IntergiroHook]


def again(hook: IntergiroHook, method: str = "GET") -> IntergiroHook:
    """Another hook on the same connection, as another task would have."""
    return IntergiroHook(hook.intergiro_conn_id, method=method)
