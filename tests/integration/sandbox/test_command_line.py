# SPDX-License-Identifier: Apache-2.0
"""`python -m intergiro_provider.sandbox`, started by a user or a script."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from intergiro_provider.sandbox.settings import DEFAULT_API_KEY
from scripts.services import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
Start = Any


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def run(*flags: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        ready = tmp_path / "ready.json"
        command = [
            sys.executable,
            "-m",
            "intergiro_provider.sandbox",
            "--port",
            "0",
            "--ready-file",
            str(ready),
            *flags,
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        wait_until(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process, json.loads(ready.read_text())

    yield run
    for process in running:
        process.kill()
        process.communicate()


def test_it_says_when_and_where_it_is_ready(start: Start) -> None:
    process, ready = start("--access-token-life", "7")
    assert ready["api_key"] == DEFAULT_API_KEY
    assert ready["pid"] == process.pid
    settings = requests.get(f"{ready['url']}/_sandbox/settings", timeout=60).json()
    assert settings["access_token_life"] == 7
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "NOT the bank" in out
    assert ready["url"] in out
    assert err == ""


def test_a_termination_signal_ends_it(start: Start) -> None:
    process, ready = start()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    port = int(ready["url"].rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_verbose_tells_requests_and_no_secrets(start: Start) -> None:
    process, ready = start("--verbose")
    url = ready["url"]
    pair = requests.post(f"{url}/v3/auth/login", json={"api_key": DEFAULT_API_KEY}, timeout=60).json()
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    requests.get(f"{url}/v3/transactions?starting_after=secret", headers=headers, timeout=60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "POST /v3/auth/login 200" in err
    assert "GET /v3/transactions 400" in err
    for secret in (*pair.values(), "starting_after", DEFAULT_API_KEY):
        assert secret not in err
    assert pair["access_token"] not in out


def test_it_ends_with_its_parent(start: Start, tmp_path: Path) -> None:
    """If the process that started a sandbox is killed, the sandbox must end, too."""
    script = (
        "import os, signal, sys\n"
        "from intergiro_provider.sandbox import Sandbox\n"
        "bank = Sandbox(process=True).start()\n"
        "print(bank.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(done.stdout)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_it_imports_nothing_of_the_product() -> None:
    script = (
        "import sys\n"
        "from intergiro_provider.sandbox import Sandbox\n"
        "with Sandbox() as bank: bank.counters()\n"
        "ours = [name for name in sys.modules if name.startswith('intergiro_provider.')]\n"
        "print([name for name in ours if not name.startswith('intergiro_provider.sandbox')])\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'airflow'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_importing_it_needs_no_extra() -> None:
    script = (
        "import sys\n"
        "sys.modules['uvicorn'] = sys.modules['starlette'] = None\n"
        "import intergiro_provider.sandbox\n"
        "from intergiro_provider.sandbox.__main__ import main\n"
        "sys.exit(main(['--port', '0']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "airflow-provider-intergiro[sandbox]" in done.stderr
