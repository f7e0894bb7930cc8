# SPDX-License-Identifier: Apache-2.0
"""Commands run in this process: what the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intergiro_provider.cli.check import check
from intergiro_provider.cli.target import Target
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver

Connect = Callable[..., Target]


def use(at: Target) -> None:
    """What a task does: a request, which finds or makes a session."""
    assert IntergiroHook(at.conn_id).run("accounts", {"limit": 1}).ok
    new_process()


def be_used(at: Target, sandbox: Sandbox) -> None:
    """Have a session that was refreshed: the lease of a first login would be waited for once the session is deleted."""
    use(at)
    sandbox.expire_access_tokens()
    use(at)


def new_process() -> None:
    """Forget what this process knows of sessions, as one that has just been started."""
    driver._caches.clear()


def found(at: Target, what: str, login: bool = False) -> dict[str, Any]:
    """One finding of `check`."""
    findings: list[dict[str, Any]] = check(at.conn_id, login=login).data
    [one] = [finding for finding in findings if finding["what"] == what]
    return one
