# SPDX-License-Identifier: Apache-2.0
"""The real commands, as processes: `airflow intergiro` if Airflow supports it, else `python -m intergiro_provider`.

Most of these processes are forked after the import of Airflow, which takes seconds.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from intergiro_provider.cli.check_airflow import airflow_version
from intergiro_provider.cli.target import target
from intergiro_provider.sandbox import Sandbox
from tests.integration.cli.running import use
from tests.integration.session.members import processes

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HAS_PROVIDER_COMMANDS = tuple(map(int, airflow_version.split(".")[:2])) >= (3, 2)
AIRFLOW = ["airflow", "intergiro"]
OURS = ["intergiro_provider"]


def forked(command: list[str], environment: dict[str, str], said: list[str]) -> None:
    """Run a command in this process, with its output in these files."""
    for number, path in enumerate(["/dev/null", *said]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


class Shell:
    """Runs commands, and stores their output.

    :param logged: whether Airflow may log its own traceback.
    """

    def __init__(self, home: Path, logged: bool = False) -> None:
        self.said = ""
        self.logged = logged
        self.files = [home / "stdout", home / "stderr"]

    def __call__(self, *words: str, program: list[str] | None = None, status: int = 0, new: bool = False) -> str:
        """Run a command, and return its standard output.

        :param new: whether to start a new process, as a user does.
        """
        command = [*(program or (AIRFLOW if HAS_PROVIDER_COMMANDS else OURS)), *words]
        for file in self.files:
            file.write_text("")
        if new:
            with self.files[0].open("w") as out, self.files[1].open("w") as err:
                ended: int | None = subprocess.run(
                    [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=out, stderr=err
                ).returncode
        else:
            process = processes.Process(target=forked, args=(command, dict(os.environ), list(map(str, self.files))))
            process.start()
            process.join()
            ended = process.exitcode
        out, err = (file.read_text() for file in self.files)
        self.said += out + err
        assert ended == status, out + err
        assert self.logged or "Traceback" not in err
        return out


def test_a_session_s_life_and_no_secret_in_anything_that_is_said(
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, lock = "http://user:proxy-secret@127.0.0.1:9", "lock-secret"
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection(proxies={"https": proxy}, colour="blue"))
    locked = sandbox.connection(lock_conn_id="lock", proxies={"https": proxy})
    monkeypatch.setenv("AIRFLOW_CONN_LOCKED", locked)
    monkeypatch.setenv(
        "AIRFLOW_CONN_LOCK",
        json.dumps({"conn_type": "redis", "host": "127.0.0.1", "port": 9, "password": lock}),
    )
    run = Shell(tmp_path)

    assert json.loads(run("session", "renew", "-o", "json", new=True))["outcome"] == "logged_in"
    sandbox.expire_access_tokens()
    assert "Refreshed: generation 2." in run("session", "renew")
    shown = json.loads(run("session", "show", "--output", "json"))
    assert (shown["session"]["generation"], shown["logins"]["counted"]) == (2, 1)
    findings = json.loads(run("check", "--login", "-c", "locked", "-o", "json", status=1))
    # Two connections with one API key, only one of them with a lock, and no Redis.
    assert [f["what"] for f in findings if f["state"] == "error"] == ["sharing", "lock"]
    assert "generation 2, written by" in run("session", "show", program=OURS, new=True)
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
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection())
    use(target("intergiro_default"))  # creates a session
    run = Shell(tmp_path, logged=True)  # Airflow 2.11 logs one for a connection that it cannot decrypt
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)
    findings = json.loads(run("check", "-o", "json", status=1, new=key == "not-a-key"))
    assert "error" in {f["state"] for f in findings if f["what"] in ("fernet_key", "session")}
    shown = run("session", "show", "-o", "json", status=1)
    # With an invalid Fernet key, Airflow cannot read any connection.
    assert shown == "" if key == "not-a-key" else json.loads(shown)["problems"]


def test_what_the_audit_log_says_is_not_on_standard_output(
    sandbox: Sandbox, airflow_db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", sandbox.connection())
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////tmp/no such directory/airflow.db")
    assert Shell(tmp_path)("session", "renew", "-o", "json", status=1, new=True) == ""


def test_airflow_before_3_2_knows_no_such_command(airflow_db: Path) -> None:
    if HAS_PROVIDER_COMMANDS:
        pytest.skip("this Airflow has commands of providers")
    done = subprocess.run([sys.executable, "-m", *AIRFLOW, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'intergiro'" in done.stdout + done.stderr
