# SPDX-License-Identifier: Apache-2.0
"""Background processes are stopped completely, and no other process is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scripts import processes
from scripts.processes import Group, ProcessDied

# A process and its child, both of which ignore SIGTERM.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(tmp_path / "state.json", tmp_path)
    yield group
    group.stop()


def start(group: Group, name: str, code: str) -> psutil.Process:
    group.start(name, [sys.executable, "-c", code], dict(os.environ), group.logs)
    return group.started[name]


def wait_for_log(group: Group, name: str, text: str) -> str:
    deadline = time.monotonic() + 120
    while text not in (log := group.log_tail(name)):
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    return log


def is_over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_polite_process_ends_by_itself(group: Group) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *a: (print('bye', flush=True), sys.exit()));"
        "print('up', flush=True); time.sleep(600)"
    )
    process = start(group, "polite", code)
    wait_for_log(group, "polite", "up")
    group.stop()
    assert is_over(process.pid)
    assert "bye" in group.log_tail("polite")


def test_stubborn_processes_and_their_children_are_killed(group: Group) -> None:
    parent = start(group, "stubborn", STUBBORN)
    child = int(wait_for_log(group, "stubborn", "child").split()[-1])
    group.stop(grace=0.3)
    assert is_over(parent.pid)
    assert is_over(child)


def test_orphans_of_a_process_that_has_ended_are_killed(group: Group) -> None:
    code = STUBBORN.replace('print("child", child.pid, flush=True)\ntime.sleep(600)', 'print("child", child.pid)')
    parent = start(group, "gone", code)
    child = int(wait_for_log(group, "gone", "child").split()[-1])
    parent.wait(120)
    assert not is_over(child)
    group.stop()
    assert is_over(child)


def test_a_death_is_noticed_and_its_last_words_are_told(group: Group) -> None:
    process = start(group, "dying", "raise SystemExit('no such database')")
    process.wait(120)
    with pytest.raises(ProcessDied, match="no such database"):
        group.check()


def test_another_command_ends_what_was_left_running(group: Group) -> None:
    process = start(group, "left", "import time; time.sleep(600)")
    later = Group.from_file(group.state_file, group.logs)
    assert list(later.started) == ["left"]
    later.stop()
    assert is_over(process.pid)
    assert not group.state_file.exists()


def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"old": [os.getpid(), psutil.Process().create_time() - 100]}))
    assert Group.from_file(state, tmp_path).started == {}


def test_listeners_tell_loopback_from_the_world(group: Group) -> None:
    code = (
        "import socket, time; a = socket.create_server(('127.0.0.1', 0)); print('at', a.getsockname()[1], flush=True);"
        "time.sleep(600)"
    )
    start(group, "server", code)
    port = int(wait_for_log(group, "server", "at ").split()[-1])
    assert group.listeners() == [("127.0.0.1", port)]
    assert group.exposed() == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_what_others_can_reach_is_exposed(group: Group, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(Group, "listeners", lambda self: [("127.0.0.1", 1), ("::1", 2), (address, 3)])
    assert group.exposed() == [(address, 3)]


def test_a_signal_during_the_start_leaves_no_process_unrecorded(tmp_path: Path) -> None:
    """Ctrl-C may arrive between the start of a process and its record. It is handled just after the record."""
    code = f"""
import os, signal, subprocess, sys
from pathlib import Path
from scripts.processes import Group
class Interrupted(subprocess.Popen):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        os.kill(os.getpid(), signal.SIGINT)
subprocess.Popen = Interrupted
group = Group(Path({str(tmp_path / "state.json")!r}), Path({str(tmp_path)!r}))
try:
    group.start("x", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), Path("."))
except KeyboardInterrupt:
    print(list(group.started))
    group.stop()
"""
    root = Path(processes.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['x']", done.stderr


def test_sigterm_runs_through_every_finally() -> None:
    code = """
import os, signal, time
from scripts.processes import interrupt_on_sigterm
interrupt_on_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(120)
finally:
    print("cleaned up")
"""
    root = Path(processes.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "cleaned up"
    assert done.returncode in {1, -signal.SIGINT}
