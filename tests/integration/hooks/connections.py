# SPDX-License-Identifier: Apache-2.0
"""Hooks with separate connections, for the tests of the hook."""

from __future__ import annotations

from collections.abc import Callable

from intergiro_provider.hooks.intergiro import IntergiroHook

TRANSACTION = "/v3/transactions"
Connect = Callable[..., IntergiroHook]


def again(hook: IntergiroHook, method: str = "GET") -> IntergiroHook:
    """Return another hook with the same connection, as in another task."""
    return IntergiroHook(hook.intergiro_conn_id, method=method)
