# SPDX-License-Identifier: Apache-2.0
"""One run of one puller: started, measured, and what it wrote counted."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks.environments import BUILD, HERE, ROOT, python_of, variables
from intergiro_provider.sandbox import Sandbox

LIMIT = 900.0
"""Seconds after which a run is ended."""
SPAN = ("2026-01-01T00:00:00.000Z", "2026-01-31T00:00:00.000Z")
"""The days that hold all rows."""
EMPTY = ("2020-01-01T00:00:00.000Z", "2020-01-02T00:00:00.000Z")
"""A day without any."""


@dataclass(frozen=True)
class Puller:
    """Who is measured.

    :param title: for people.
    :param script: in ``pullers/``.
    :param environment: what it runs in.
    :param windows: how many windows it pulls side by side, at the most.
    :param fixed: whether it has that many from the beginning, instead of finding out how many pay.
    :param tls: whether it speaks TLS with the bank.
    """

    title: str
    script: str
    environment: str = "ours"
    windows: int = 1
    file_format: str = "jsonl"
    fixed: bool = False
    tls: bool = False


@dataclass(frozen=True)
class Figures:
    """What one run came to: seconds, MB of 10^6 bytes, counts, `refused` that of 429; `server_cpu` is the sandbox's."""

    wall: float
    cpu: float
    peak_mb: float
    connections: int
    requests: int
    refused: int
    server_cpu: float
    rows: int


class Bank:
    """A sandbox in a process of its own, its records serialised beforehand, and a token for the peers."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._sandbox = Sandbox(
            process=True, transactions=rows, now=SPAN[1], days=30.0, prepare=True, cached_records=rows,
            access_token_life=86400.0, session_life=86400.0, login_limit=1000, kept_requests=0,
        )  # fmt: skip
        self.token = ""
        self._certificate = BUILD / "certificate.pem"

    def __enter__(self) -> Bank:
        self._sandbox.start()
        wire = http.client.HTTPConnection(self._sandbox.host, self._sandbox.port)
        wire.request("POST", "/v3/auth/login", json.dumps({"api_key": self._sandbox.api_key}))
        self.token = json.loads(wire.getresponse().read())["access_token"]
        wire.close()
        self._process = psutil.Process(self._sandbox.pid)
        self._proxy = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tls_proxy", str(self._sandbox.port), str(self._certificate)],
            stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )  # fmt: skip
        assert self._proxy.stdout is not None
        self._tls_url = f"https://{self._sandbox.host}:{int(self._proxy.stdout.readline())}"
        return self

    def __exit__(self, *exception: object) -> None:
        self._proxy.kill()
        self._proxy.communicate()
        self._sandbox.stop()

    def measure(
        self,
        puller: Puller,
        latency: float = 0.0,
        span: tuple[str, str] = SPAN,
        expected: int | None = None,
        **limits: Any,
    ) -> Figures:
        """Run a puller once against an empty directory.

        :param latency: seconds added to each response.
        :param span: the interval to pull. :param expected: its rows; None: all.
        :param limits: other settings of the sandbox.
        :raises RuntimeError: it failed, or has not written every row.
        """
        self._sandbox.set(latency=latency, **limits)
        expected = self.rows if expected is None else expected
        directory = BUILD / "out"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        command = [
            python_of(puller.environment),
            str(HERE / "pullers" / f"{puller.script}.py"),
            json.dumps(self._job(puller, span)),
        ]
        environment = variables() | ({"REQUESTS_CA_BUNDLE": str(self._certificate)} if puller.tls else {})
        with (BUILD / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=BUILD
            )
            try:
                measured, server_cpu = self._drive(process)
            finally:
                process.kill()
                process.wait()
        counted = self._sandbox.counters()
        ids = [*_ids(directory)]
        if not len(ids) == len(set(ids)) == expected:
            distinct = len(set(ids))
            raise RuntimeError(f"{puller.title} wrote {len(ids)} rows, {distinct} of them distinct, not {expected}")
        return Figures(
            **measured,
            connections=counted.connections,
            requests=counted.requests,
            refused=counted.too_many_requests,
            server_cpu=server_cpu,
            rows=len(ids),
        )

    def write(self, directory: Path, span: tuple[str, str], file_format: str) -> None:
        """Let our puller write the result of an interval, for others to load."""
        directory.mkdir(parents=True)
        puller = Puller("ours", "ours", windows=16, file_format=file_format)
        job = self._job(puller, span) | {"directory": str(directory)}
        run_script("pullers/ours", "ours", job)

    def say(self, script: str) -> dict[str, float]:
        """What a script that measures something else says, run beside this bank."""
        self._sandbox.set(latency=0.0)
        command = [python_of("ours"), str(HERE / "pullers" / f"{script}.py"), json.dumps(self._job(Puller("", "")))]
        done = subprocess.run(command, env=variables(), cwd=BUILD, capture_output=True, timeout=LIMIT)
        if done.returncode:
            raise RuntimeError(f"{script} failed ({done.returncode}):\n{done.stderr[-2000:].decode()}")
        said: dict[str, float] = json.loads(done.stdout.strip().rpartition(b"\n")[2])
        return said

    def _job(self, puller: Puller, span: tuple[str, str] = SPAN) -> dict[str, Any]:
        url = self._tls_url if puller.tls else self._sandbox.url
        connection = json.loads(self._sandbox.connection())
        if puller.tls:
            connection |= {"host": url, "port": None}
            connection.setdefault("extra", {})["verify"] = str(self._certificate)
        return {
            "url": url,
            "token": self.token,
            "connection": json.dumps(connection),
            "directory": str(BUILD / "out"),
            "created_from": span[0],
            "created_to": span[1],
            "windows": puller.windows,
            "fixed": puller.fixed,
            "file_format": puller.file_format,
        }

    def _drive(self, process: subprocess.Popen[bytes]) -> tuple[dict[str, float], float]:
        """Let a puller that has got ready pull; what it says of that, and the bank's seconds of CPU."""
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        for line in process.stdout:
            if line == b"ready\n":
                break
        self._sandbox.reset_counters()
        before = _spent(self._process)
        try:
            process.stdin.write(b"\n")
            process.stdin.flush()
            output, _ = process.communicate(timeout=LIMIT)
        except BrokenPipeError:
            output = b""
        spent = _spent(self._process) - before
        last = output.strip().rpartition(b"\n")[2]
        if process.returncode or not last.startswith(b'{"wall"'):
            raise RuntimeError(f"a puller failed ({process.returncode}):\n{(BUILD / 'log.txt').read_text()[-2000:]}")
        found: dict[str, float] = json.loads(last)
        return found, spent


def run_script(script: str, environment: str, job: dict[str, Any]) -> dict[str, float]:
    """Run a puller or a loader, and return what it says.

    :raises RuntimeError: it failed.
    """
    command = [python_of(environment), str(HERE / f"{script}.py"), json.dumps(job)]
    done = subprocess.run(command, input=b"\n", capture_output=True, env=variables(), cwd=BUILD, timeout=LIMIT)
    last = done.stdout.strip().rpartition(b"\n")[2]
    if done.returncode or not last.startswith(b'{"wall"'):
        raise RuntimeError(f"{script} failed ({done.returncode}):\n{done.stderr[-4000:].decode()}")
    found: dict[str, float] = json.loads(last)
    return found


def median(runs: Sequence[Figures]) -> Figures:
    """Each figure's median."""
    middle: dict[str, Any] = {
        each.name: type(getattr(runs[0], each.name))(statistics.median(getattr(run, each.name) for run in runs))
        for each in dataclasses.fields(Figures)
    }
    return Figures(**middle)


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class _Id(msgspec.Struct, gc=False):
    id: str


class _Line(msgspec.Struct, gc=False):
    """A record, a page of them, or a message that holds one."""

    id: str | None = None
    data: list[_Id] | None = None
    type: str | None = None
    record: _Id | None = None


_decode = msgspec.json.Decoder(_Line).decode


def _ids(directory: Path) -> Iterator[str]:
    """The ids of everything that was written, whatever the shape."""
    for path in directory.rglob("*.parquet"):
        from pyarrow import parquet  # type: ignore[import-untyped]

        yield from parquet.read_table(path, columns=["id"]).column("id").to_pylist()
    for path in directory.rglob("*.jsonl"):
        if any(part.startswith(("_dlt", ".")) for part in path.relative_to(directory).parts):
            continue
        with path.open("rb") as lines:
            for line in map(_decode, lines):
                if line.data is not None:
                    yield from (record.id for record in line.data)
                elif line.record is not None and line.type == "RECORD":
                    yield line.record.id
                elif line.id is not None:
                    yield line.id
