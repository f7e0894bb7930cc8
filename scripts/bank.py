# SPDX-License-Identifier: Apache-2.0
"""The sandbox in its own process, and its counters."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import requests

from scripts.processes import Group, free_port

#: Upper limit for the sandbox's first response, in seconds.
START_TIMEOUT = 30.0


class Bank:
    """A running sandbox. Its end is that of the group of processes that it was started in."""

    def __init__(self, port: int) -> None:
        """Take the loopback port that the sandbox listens on."""
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._http = requests.Session()
        self._http.trust_env = False

    @classmethod
    def start(cls, processes: Group, env: dict[str, str], cwd: Path, *flags: str) -> Bank:
        """Start a sandbox with these flags and wait until it answers."""
        bank = cls(free_port())
        command = [sys.executable, "-m", "intergiro_provider.sandbox", "--port", str(bank.port), *flags]
        processes.start("sandbox", command, env, cwd)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            processes.check()
            try:
                bank.counters()
                return bank
            except requests.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def control(self, method: str, path: str, json: Any = None) -> Any:
        """Call the sandbox's own control API, below /_sandbox."""
        answer = self._http.request(method, f"{self.url}/_sandbox/{path}", json=json, timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def counters(self) -> dict[str, Any]:
        """Return what has happened so far."""
        counters: dict[str, Any] = self.control("GET", "counters")
        return counters

    def settings(self) -> dict[str, Any]:
        """Return the settings in force."""
        settings: dict[str, Any] = self.control("GET", "settings")
        return settings

    def issued(self) -> list[str]:
        """Return every access and refresh token ever issued, the oldest first."""
        tokens: list[str] = self.control("GET", "tokens")["tokens"]
        return tokens

    def tokens(self) -> set[str]:
        """Return every access and refresh token ever issued: none of them may turn up anywhere else."""
        return set(self.issued())

    def records(self, created_from: str, created_to: str, path: str = "/v3/transactions") -> list[bytes]:
        """Return what a list holds with from <= created_at < to, as the bytes of each record, without a login."""
        query = {"path": path, "created_from": created_from, "created_to": created_to}
        answer = self._http.get(f"{self.url}/_sandbox/records", params=query, timeout=60)
        answer.raise_for_status()
        return answer.content.splitlines()
