# SPDX-License-Identifier: Apache-2.0
"""Start background processes in their own sessions, and stop them even after an error.

The pid of each process is kept in a file together with the moment it started, so that a later command
(`make down`) can end them, and never stops another process that got the same pid.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

#: How long a process may take to end by itself after SIGTERM, in seconds.
GRACE = 15.0


class ProcessDied(Exception):
    """A background process has ended although it should be running."""


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Group:
    """The background processes of one stack, by name, in the order in which they were started."""

    state_file: Path
    logs: Path
    started: dict[str, psutil.Process] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Start a command; its output goes to `<logs>/<name>.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log, _signals_held(raise_after=True):
            # Its own session: Ctrl-C at the terminal must reach us alone, so that we end things in order.
            child = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.started[name] = psutil.Process(child.pid)
            self._save()

    def check(self) -> None:
        """Raise ProcessDied, with the end of its log, if one of the processes is gone."""
        for name, process in self.started.items():
            if _ended(process):
                raise ProcessDied(f"{name} has ended by itself. The end of its log:\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 25) -> str:
        """Return the last lines that a process has written."""
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def family(self) -> list[psutil.Process]:
        """Return every process that belongs to the group: the started ones, their children and sessions."""
        return _family(self.started.values())

    def listeners(self) -> list[tuple[str, int]]:
        """Return the address and port of every TCP socket that the group listens on."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.append((connection.laddr.ip, connection.laddr.port))
        return sorted(set(found))

    def exposed(self) -> list[tuple[str, int]]:
        """Return those listeners that can be reached from another machine: there must be none."""
        return [item for item in self.listeners() if not ipaddress.ip_address(item[0]).is_loopback]

    def stop(self, grace: float = GRACE) -> None:
        """End all of it: SIGTERM first, SIGKILL for what is left after `grace` seconds."""
        with _signals_held(raise_after=False):
            _stop(self.started, grace)
            self.started = {}
            self.state_file.unlink(missing_ok=True)

    def _save(self) -> None:
        state = {name: [process.pid, process.create_time()] for name, process in self.started.items()}
        self.state_file.write_text(json.dumps(state))

    @classmethod
    def from_file(cls, state_file: Path, logs: Path) -> Group:
        """Return the group that an earlier command has left running: empty if there is none."""
        group = cls(state_file, logs)
        if state_file.is_file():
            for name, (pid, create_time) in json.loads(state_file.read_text()).items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    # A second of tolerance: the kernel's clock ticks are converted by the boot time.
                    if abs(process.create_time() - create_time) < 1.0:
                        group.started[name] = process
        return group


def _family(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the roots, their descendants and all processes in a session that one of the roots leads."""
    found: dict[int, psutil.Process] = {}
    sessions = set()
    for root in roots:
        with contextlib.suppress(psutil.Error):
            found[root.pid] = root
            sessions.add(root.pid)
            found.update((child.pid, child) for child in root.children(recursive=True))
    # An orphan is no longer a descendant, yet it stays in the session in which it was born.
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) in sessions:
                found.setdefault(process.pid, process)
    return list(found.values())


def _stop(started: Mapping[str, psutil.Process], grace: float) -> None:
    family = _family(started.values())
    # The last one started is stopped first, so that none loses the API server while it finishes its work.
    for process in reversed(list(started.values())):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _wait(started.values(), grace)
    family += [process for process in _family(started.values()) if process not in family]
    # A process that ends in order ends its children too; what is left after a moment has to be killed.
    _wait(family, min(2.0, grace))
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(family, 5.0)


def _wait(processes: Iterable[psutil.Process], timeout: float) -> None:
    """Wait until all have ended, at most so many seconds. A zombie has ended, whether anybody reaps it or not."""
    waiting = list(processes)
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        psutil.wait_procs(waiting, timeout=0.05)  # reaps our own children
        waiting = [process for process in waiting if not _ended(process)]


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def _signals_held(raise_after: bool) -> Iterator[None]:
    """Let no signal interrupt what must be whole: a process started but not yet noted, or the clean-up.

    What has come meanwhile is raised as KeyboardInterrupt afterwards, or dropped.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal handler runs anyway
        yield
        return
    came: list[int] = []
    # A function rather than SIG_IGN, which a process started meanwhile would inherit.
    former = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if came and raise_after:
        raise KeyboardInterrupt(f"signal {came[0]}")


def interrupt_on_sigterm() -> None:
    """Make SIGTERM and SIGHUP end this program the way Ctrl-C does: through every `finally`."""

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGHUP, handler)
