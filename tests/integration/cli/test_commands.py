# SPDX-License-Identifier: Apache-2.0
"""The real commands, as processes: `airflow intergiro` where Airflow has it, else `python -m intergiro_provider`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intergiro_provider.cli.check_airflow import airflow_version
from intergiro_provider.sandbox import Sandbox

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HAS_PROVIDER_COMMANDS = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 2)
AIRFLOW = [sys.executable, "-m", "airflow", "intergiro"]
OURS = [sys.executable, "-m", "intergiro_provider"]


class Shell:
    """Runs commands, and keeps all that they have said.

    :param logged: whether Airflow may log a traceback of its own.
    """

    def __init__(self, logged: bool = False) -> None:
        self.said = ""
        self.logged = logged

    def __call__(self, *words: str, program: list[str] | None = None, status: int = 0) -> str:
        command = [*(program or (AIRFLOW if HAS_PROVIDER_COMMANDS else OURS)), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == status, done.stdout + done.stderr
        assert self.logged or "Traceback" not in done.stderr
        return done.stdout


@pytest.mark.timeout(300)
def test_a_session_s_life_and_no_secret_in_anything_that_is_said(
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, lock = "http://user:proxy-secret@127.0.0.1:9", "lock-secret"
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection(proxies={"https": proxy}, colour="blue"))
    locked = sandbox.connection(lock_conn_id="lock", proxies={"https": proxy})
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", locked)
    monkeypatch.setenv(
        "AIRFLOW_CONN_LOCK",
        json.dumps({"conn_type": "redis", "host": "127.0.0.1", "port": 9, "password": lock}),
    )
    run = Shell()

    assert json.loads(run("session", "renew", "-o", "json"))["outcome"] == "logged_in"
    sandbox.expire_access_tokens()
    assert "Refreshed: generation 2." in run("session", "renew")
    shown = json.loads(run("session", "show", "--output", "json"))
    assert (shown["session"]["generation"], shown["logins"]["counted"]) == (2, 1)
    findings = json.loads(run("check", "--login", "-c", "locked", "-o", "json", status=1))
    # Two connections with one API key, only one of them with a lock, and no Redis.
    assert [f["what"] for f in findings if f["state"] == "error"] == ["sharing", "lock"]
    assert "generation 2, written by" in run("session", "show", program=OURS)
    assert run("session", "reset", status=1) == ""
    assert "Deleted the session" in run("session", "reset", "--yes")
    assert "intergiro_session_" not in str(json.loads(run("session", "prune", "--yes", "-o", "json"))["kept"])
    assert run("session", "show", "--conn-id", "nowhere", status=1) == ""

    assert sandbox.counters().logins == 2, "the first one, and that of `check --login`"
    secrets = [*sandbox.tokens(), sandbox.api_key, "proxy-secret", lock, os.environ["AIRFLOW__CORE__FERNET_KEY"]]
    assert len(secrets) >= 8
    assert [secret[:4] for secret in secrets if secret in run.said] == []


@pytest.mark.parametrize("key", ["not-a-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="], ids=["none", "another"])
def test_with_a_bad_fernet_key_there_is_only_json_on_standard_output(
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection())
    run = Shell(logged=True)  # 2.11 does, of a connection that it cannot decrypt
    run("session", "renew")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)
    findings = json.loads(run("check", "-o", "json", status=1))
    assert "error" in {f["state"] for f in findings if f["what"] in ("fernet_key", "session")}
    shown = run("session", "show", "-o", "json", status=1)
    # Without a Fernet key that is one, Airflow cannot read any connection.
    assert shown == "" if key == "not-a-key" else json.loads(shown)["problems"]


def test_what_the_audit_log_says_is_not_on_standard_output(
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection())
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////tmp/no such directory/airflow.db")
    assert Shell()("session", "renew", "-o", "json", status=1) == ""


def test_airflow_before_3_2_knows_no_such_command(airflow_db: Path) -> None:
    if HAS_PROVIDER_COMMANDS:
        pytest.skip("this Airflow has commands of providers")
    done = subprocess.run([*AIRFLOW, "check"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'intergiro'" in done.stdout + done.stderr
