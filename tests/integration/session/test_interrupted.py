# SPDX-License-Identifier: Apache-2.0
"""Airflow interrupts a process during a renewal, or the process forks: real Variables, real signals."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.hooks import intergiro
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.store import VariableStore
from tests.integration.session.crash_campaign import let_readers_read
from tests.integration.session.crashes import SHRUNK, Case, Part
from tests.integration.session.members import InProcess, member
from tests.integration.session.steps import Diary, Position, Steps, Strike
from tests.system.conftest import AIRFLOW
from tests.timings import ALONE

pytestmark = pytest.mark.integration

TIMEOUT = "AirflowTaskTimeout"
TERMINATED = "AirflowTaskTerminated"


def begin(part: Part, at: Callable[[str], None] = lambda step: None) -> intergiro.IntergiroHook:
    os.environ.update(part.environment)
    tempfile.tempdir = str(part.locks)
    intergiro._timings = lambda: SHRUNK
    Steps(part.diary, part.who, part.url, part.strike, at).watch()
    return intergiro.IntergiroHook(part.conn_id)


def use(part: Part, pipe: Any) -> int:
    return begin(part).run("accounts", {"limit": 1}).status_code


def create(part: Part, pipe: Any) -> int:
    hook = begin(part)
    intergiro._timings = lambda: ALONE
    return hook.run("accounts", {"limit": 1}).status_code


def with_execution_timeout(part: Part, pipe: Any) -> tuple[str, float, int]:
    """Make a call under the timeout of a task, which fires as planned; then another call, as in a failure callback."""
    try:
        from airflow.sdk.execution_time.timeout import timeout
    except ImportError:
        from airflow.utils.timeout import timeout
    hook = begin(part)
    try:
        with timeout(100):
            hook.run("accounts", {"limit": 1})
        raised = ""
    except BaseException as error:
        raised = type(error).__name__
    at = time.monotonic()
    return raised, at, hook.run("accounts", {"limit": 1}).status_code


def with_sigterm(part: Part, pipe: Any) -> tuple[str, float, int]:
    """Make a call in a task that Airflow stops. Airflow 2.11 raises in the main thread, Airflow 3 calls `on_kill`."""
    killed = []

    def handler(*_: Any) -> None:
        killed.append(True)
        if AIRFLOW < (3, 0):
            from airflow.exceptions import AirflowTaskTerminated

            raise AirflowTaskTerminated("Task received SIGTERM signal")

    signal.signal(signal.SIGTERM, handler)
    hook = begin(part)
    raised = ""
    try:
        hook.run("accounts", {"limit": 1})
    except BaseException as error:
        raised = type(error).__name__
    at = time.monotonic()
    assert killed
    return raised, at, hook.run("accounts", {"limit": 1}).status_code


def forking(part: Part, step: str, pipe: Any) -> tuple[int, int]:
    """Fork while another thread is right after this step of a renewal. Return the results of parent and child."""
    reached, forked = threading.Event(), threading.Event()

    def at(done: str) -> None:
        if done == step and not reached.is_set():
            reached.set()
            forked.wait(120)

    hook = begin(part, at)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(hook.run("accounts", {"limit": 1}).status_code))
    thread.start()
    assert reached.wait(120)
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        try:
            os._exit(0 if hook.run("accounts", {"limit": 1}).status_code == 200 else 1)
        finally:
            os._exit(2)
    forked.set()
    thread.join(300)
    return statuses[0] if statuses else 0, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def bank() -> Iterator[Sandbox]:
    with Sandbox(process=True, transactions=1) as running:
        yield running


@pytest.fixture
def part(airflow_db: Path, bank: Sandbox, tmp_path: Path) -> Part:
    """Return a process of a fleet whose session has an access token that has just expired."""
    let_readers_read(airflow_db)
    name = f"interrupted_{bank.port}"
    environment = {f"AIRFLOW_CONN_{name.upper()}": bank.connection()}
    diary = Diary(tmp_path / "diary.jsonl")
    made = Part("first", Case("expired"), name, bank.url, environment, tmp_path, diary)
    with member(create, made) as first:
        assert hear(first) == 200
    bank.expire_access_tokens()
    return replace(made, who="victim")


def calls(bank: Sandbox) -> tuple[int, int]:
    """Return the number of logins and refreshes. Check that the bank has refused none."""
    counters = bank.counters()
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)
    return counters.logins, counters.refreshes


def store_of(part: Part) -> VariableStore:
    return VariableStore(
        Codec(part.url, json.loads(part.environment[f"AIRFLOW_CONN_{part.conn_id.upper()}"])["password"])
    )


def hear(process: InProcess) -> Any:
    said = process.hear(300)
    if isinstance(said, BaseException):
        raise said
    return said


INTERRUPTED: list[tuple[str, int, Position]] = [
    ("write lease", 1, "during"),
    ("read session", 2, "before"),
    ("refresh", 1, "during"),
    ("write session", 1, "during"),
]


@pytest.mark.parametrize(("step", "nth", "position"), INTERRUPTED)
@pytest.mark.parametrize("how", ["execution_timeout", "SIGTERM"])
def test_a_task_interrupted_in_the_middle_of_a_renewal(
    bank: Sandbox, part: Part, how: str, step: str, nth: int, position: Position
) -> None:
    number = signal.SIGALRM if how == "execution_timeout" else signal.SIGTERM
    task = with_execution_timeout if how == "execution_timeout" else with_sigterm
    struck = replace(part, strike=Strike(step, nth, position, number))
    with member(task, struck) as process:
        raised, at, status = hear(process)

    expected = TIMEOUT if how == "execution_timeout" else TERMINATED if AIRFLOW < (3, 0) else ""
    assert raised == expected
    # Raised, but not before the step was complete.
    entries = [entry for entry in part.diary.entries() if entry.who == "victim"]
    (strike,) = (entry.at for entry in entries if entry.kind == "strike")
    ends = [entry.at for entry in entries if entry.step == step and entry.kind == "end" and entry.at > strike]
    assert strike < ends[0] < at
    asked = [entry for entry in entries if entry.step == "refresh" and entry.kind == "begin" and entry.at < at]
    stored = [entry for entry in entries if entry.step == "write session" and entry.kind == "end" and entry.at < at]
    assert len(asked) == len(stored)
    # The same process continues, and the next one finds the session in the store.
    assert status == 200
    with member(use, replace(part, who="next")) as following:
        assert hear(following) == 200
    assert calls(bank) == (1, 1)
    session, lease = store_of(part).read("session"), store_of(part).read("lease")
    assert isinstance(session, TokenPair)
    assert isinstance(lease, Lease)
    assert (session.gen, lease.nonce) == (2, session.nonce)


@pytest.mark.parametrize("step", ["acquire locks", "write lease", "refresh", "write session"])
def test_a_fork_in_the_middle_of_a_renewal(bank: Sandbox, part: Part, step: str) -> None:
    with member(forking, part, step) as process:
        assert hear(process) == (200, 0)

    # The child has waited for the parent's renewal, and has not renewed.
    assert calls(bank) == (1, 1)
