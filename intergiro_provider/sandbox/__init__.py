# SPDX-License-Identifier: Apache-2.0
"""A bank on loopback that imitates Intergiro, for demos, tests and DAG authors without a staging account.

It imports nothing from the rest of the package, and the rest of the package does not import it.

From a shell::

    python -m intergiro_provider.sandbox --port 8765

From Python::

    from intergiro_provider.sandbox import Sandbox

    with Sandbox(access_token_life=3) as bank:
        ...  # bank.url, bank.api_key, bank.counters(), bank.set(...), bank.fault(...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intergiro_provider.sandbox.embedded import Sandbox

__all__ = ["Sandbox"]


def __getattr__(name: str) -> Any:
    # Lazy: importing the package must work, and stay cheap, without the `sandbox` extra.
    if name == "Sandbox":
        from intergiro_provider.sandbox.embedded import Sandbox

        return Sandbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
