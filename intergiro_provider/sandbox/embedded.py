# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a context manager: in a thread of this process, or in another process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import intergiro_provider
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.settings import Settings, parse_key

START = 120.0
"""Upper limit for a start, in seconds."""


class Sandbox:
    """A bank that imitates Intergiro and runs inside a `with` block.

    It listens on loopback only. Its methods use its control API, so they are the same in a thread and in a process.

    :param process: run it in its own process, for benchmarks and if this process forks.
    :param python: the interpreter of that process; it needs the `sandbox` extra.
    :param port: 0 selects a free one.
    :param settings: any of `settings.Settings`, by name.
    """

    def __init__(
        self,
        *,
        process: bool = False,
        python: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        self._settings = Settings().changed(settings)
        self._process_wanted, self._python = process or python is not None, python or sys.executable
        self._host, self._port, self._verbose = host, port, verbose
        self._running: _Thread | _Process | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it, if a `with` block is not possible.

        :raises RuntimeError: it did not start.
        """
        if self._running is not None:
            raise RuntimeError("the sandbox is already running")
        if self._process_wanted:
            self._running = _Process(self._python, self._settings, self._host, self._port, self._verbose)
        else:
            self._running = _Thread(self._settings, self._host, self._port, self._verbose)
        return self

    def stop(self) -> None:
        """Stop it, if it is running."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return self._alive().url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(urlsplit(self.url).port or 0)

    @property
    def host(self) -> str:
        """The address it listens on."""
        return str(urlsplit(self.url).hostname)

    @property
    def pid(self) -> int:
        """The process it runs in."""
        return self._alive().pid

    @property
    def api_key(self) -> str:
        """The first API key."""
        return parse_key(self._settings.api_keys[0])[0]

    def connection(self, **extra: Any) -> str:
        """Return an Airflow connection to it, as JSON for AIRFLOW_CONN_<ID>.

        :param extra: entries of the connection's extra.
        """
        described: dict[str, Any] = {
            "conn_type": "intergiro",
            "host": f"http://{self.host}",
            "port": self.port,
            "password": self.api_key,
        }
        if extra:
            described["extra"] = extra
        return json.dumps(described)

    def counters(self) -> Counters:
        """Return the counters."""
        return Counters.from_dict(self._call("GET", "counters"))

    def reset_counters(self) -> None:
        """Set all counters to zero."""
        self._call("DELETE", "counters")

    def settings(self) -> dict[str, Any]:
        """Return the current settings."""
        found: dict[str, Any] = self._call("GET", "settings")
        return found

    def set(self, **settings: Any) -> None:
        """Change settings while it runs.

        :raises ValueError: a setting does not exist or is not valid; nothing was changed.
        """
        self._call("PATCH", "settings", settings)

    def fault(self, kind: str, path: str = "/v", **described: Any) -> int:
        """Set a fault; see `faults.KINDS`. Returns its number.

        :param path: prefix of the paths to which it applies; with `$` at the end, only that path.
        :param described: `method`, `times`, `skip`, `probability`, `seed`, and the kind's own parameters.
        :raises ValueError: the fault or a parameter does not exist.
        """
        return int(self._call("POST", "faults", {"kind": kind, "path": path, **described})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults that are set, and how often each was applied."""
        found: list[dict[str, Any]] = self._call("GET", "faults")
        return found

    def clear_faults(self, number: int | None = None) -> None:
        """Remove one fault, or all."""
        self._call("DELETE", "faults" if number is None else f"faults/{number}")

    def reset(self) -> None:
        """Return to the start: settings, data, sessions, faults, counters and time. `tokens` keeps all tokens."""
        self._call("POST", "reset")

    def tokens(self) -> list[str]:
        """Return every access and refresh token that it has issued."""
        found: list[str] = self._call("GET", "tokens")["tokens"]
        return found

    def requests(self) -> list[dict[str, Any]]:
        """The last requests: number, method, path, query, headers, body, status, fault, connection."""
        found: list[dict[str, Any]] = self._call("GET", "requests")
        return found

    def state(self) -> dict[str, Any]:
        """Return the numbers of active `sessions` and `access_tokens`, and the bank's `now` in epoch seconds."""
        found: dict[str, Any] = self._call("GET", "state")
        return found

    def end_sessions(self) -> int:
        """End every session. Return how many were active."""
        return int(self._call("POST", "end_sessions")["ended"])

    def expire_access_tokens(self) -> int:
        """Expire every access token. Return how many were valid."""
        return int(self._call("POST", "expire_access_tokens")["expired"])

    def approve_consents(self) -> int:
        """Approve all pending consents, as a user would. Return their number."""
        return int(self._call("POST", "approve_consents")["decided"])

    def refuse_consents(self) -> int:
        """Refuse all pending consents, as a user would. Return their number."""
        return int(self._call("POST", "refuse_consents")["decided"])

    def approve_batches(self) -> int:
        """Approve all waiting batches, as a user would. Return their number."""
        return int(self._call("POST", "approve_batches")["decided"])

    def reject_batches(self) -> int:
        """Reject all waiting batches, as a user would. Return their number."""
        return int(self._call("POST", "reject_batches")["decided"])

    def settle(self) -> int:
        """Complete the pending payments and added transactions; return their number.

        If `settle_after` is set, complete the generated transactions too, which otherwise stay pending.
        """
        return int(self._call("POST", "settle")["settled"])

    def advance(self, seconds: float) -> None:
        """Move the bank's clock forward: tokens, sessions, login windows and the Date header."""
        self._call("POST", "advance", {"seconds": seconds})

    def outage(self, seconds: float) -> None:
        """Close all connections and refuse new ones for some seconds. Return once the outage has begun.

        0 only closes the open connections.
        """
        with self._connected() as connection:
            self._exchange(connection, "POST", "outage", {"seconds": seconds})
            with contextlib.suppress(ConnectionError):
                connection.sock.recv(1)  # returns when the outage closes this connection, too

    def add_transactions(
        self, count: int = 1, created_at: str | None = None, api: str = "v3", **fields: Any
    ) -> list[str]:
        """Book transactions, now or at `created_at`; return their ids."""
        described = {"count": count, "api": api, "fields": fields}
        if created_at is not None:
            described["created_at"] = created_at
        found: list[str] = self._call("POST", "transactions", described)["ids"]
        return found

    def change_transactions(self, ids: list[str], api: str = "v3", **fields: Any) -> None:
        """Change fields of transactions, for example `status="completed"`; `updated_at` becomes now."""
        self._call("PATCH", "transactions", {"ids": ids, "api": api, "fields": fields})

    def records(
        self, path: str = "/v3/transactions", created_from: str | None = None, created_to: str | None = None
    ) -> list[bytes]:
        """Return the bytes of all records with from <= created_at < to, in the order of creation, to check a pull."""
        given = {"path": path, "created_from": created_from, "created_to": created_to}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        return self._read("GET", f"records?{query}").splitlines()

    def _alive(self) -> _Thread | _Process:
        if self._running is None:
            raise RuntimeError("the sandbox is not running: use it in a `with` block")
        return self._running

    def _call(self, method: str, name: str, sent: dict[str, Any] | None = None) -> Any:
        return json.loads(self._read(method, name, sent))

    def _read(self, method: str, name: str, sent: dict[str, Any] | None = None) -> bytes:
        with self._connected() as connection:
            return self._exchange(connection, method, name, sent)

    def _connected(self) -> contextlib.closing[http.client.HTTPConnection]:
        return contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=60))

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, name: str, sent: dict[str, Any] | None
    ) -> bytes:
        connection.request(method, f"/_sandbox/{name}", None if sent is None else json.dumps(sent))
        response = connection.getresponse()
        text = response.read()
        if response.status == 400:
            raise ValueError(json.loads(text)["error"])
        if response.status >= 300:
            raise RuntimeError(f"the sandbox returned {response.status} to {method} {name.partition('?')[0]}")
        return text


class _Thread:
    """A sandbox in a daemon thread of this process."""

    def __init__(self, settings: Settings, host: str, port: int, verbose: bool) -> None:
        from intergiro_provider.sandbox.server import Server, listen

        ready = threading.Event()
        self._server = Server(settings, listen(host, port), verbose=verbose, ready=ready.set)
        self.url, self.pid = self._server.url, os.getpid()
        self._thread = threading.Thread(target=self._server.run_until_stopped, name="sandbox", daemon=True)
        self._thread.start()
        if not ready.wait(START):
            raise RuntimeError("the sandbox did not start")

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(10)


class _Process:
    """A sandbox in its own process, which ends with this process."""

    def __init__(self, python: str, settings: Settings, host: str, port: int, verbose: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            ready = Path(folder, "ready.json")
            command = [python, "-m", "intergiro_provider.sandbox", f"--host={host}", f"--port={port}"]
            command += [f"--ready-file={ready}", "--until-stdin-closes", f"--settings={json.dumps(settings.as_dict())}"]
            command += ["--verbose"] if verbose else []
            root = str(Path(intergiro_provider.__file__).parent.parent)
            paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            until = time.monotonic() + START
            while not ready.exists():
                if self._process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise RuntimeError("the sandbox did not start; see stderr")
                time.sleep(0.01)
            found = json.loads(ready.read_text())
        self.url, self.pid = str(found["url"]), int(found["pid"])

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
