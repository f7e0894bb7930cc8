# SPDX-License-Identifier: Apache-2.0
"""Run commands in this process, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from intergiro_provider.cli.check import check
from intergiro_provider.cli.target import Target
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, TokenPair

Connect = Callable[..., Target]


def use(at: Target) -> None:
    """Send a request, as a task does. It finds or creates a session."""
    assert IntergiroHook(at.conn_id).run("accounts", {"limit": 1}).ok
    new_process()


def be_used(at: Target, sandbox: Sandbox) -> None:
    """Create a session and refresh it. After a first login without a refresh, a deletion would cost a wait."""
    use(at)
    sandbox.expire_access_tokens()
    use(at)


def new_process() -> None:
    """Clear the cached sessions, as in a new process."""
    driver._caches.clear()


def found(at: Target, what: str, login: bool = False) -> dict[str, Any]:
    """Return one finding of `check`."""
    findings: list[dict[str, Any]] = check(at.conn_id, login=login).data
    [one] = [finding for finding in findings if finding["what"] == what]
    return one


def stored(at: Target) -> TokenPair:
    session = at.store.read("session")
    assert isinstance(session, TokenPair)
    return session


def put(key: str, value: str) -> None:
    from airflow.models.variable import Variable

    Variable.set(key, value)


def flat(text: str) -> str:
    """Return the text on one line, without its line breaks."""
    return " ".join(text.split())


def held_lease(at: Target) -> None:
    """Store a held lease, as during a renewal, or after its process was killed."""
    at.store.write("lease", Lease(stored(at).gen, "n", holder="worker-7:42"))
