# SPDX-License-Identifier: Apache-2.0
"""Every snippet of the documentation works as shown, against the sandbox."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from intergiro_provider.api.settings import KNOWN_EXTRAS, read_settings
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.sandbox.__main__ import parser
from tests.integration.docs.snippets import AIRFLOW, CODE, ROOT, Snippet, all_snippets, runnable, snippets_of
from tests.integration.test_dags_examples import RUN

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: URLs that the snippets write to. A temporary directory replaces each.
LAKES = ("s3://aws_default@lake/", "file:///tmp/lake/")

#: The DAG around operators that are shown without one.
DAG_AROUND = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG(
    {name!r},
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
):
{body}
"""

#: Executes the files on the command line separately, and reports those that fail.
EXECUTE = """
import sys, traceback
failed = []
for path in sys.argv[1:]:
    try:
        exec(compile(open(path).read(), path, "exec"), {"__name__": "snippet"})
    except BaseException:
        traceback.print_exc()
        failed.append(path)
print("FAILED", failed) if failed else print("ALL RAN")
"""

#: Runs groups of `airflow` commands, a JSON list on standard input, in one process. Before each group, the connection
#: of the environment variable `SEED` is created, unless the group creates connections.
COMMANDS = """
import json, os, sys
from airflow.cli.cli_parser import get_parser
from airflow.models import Connection, Variable
from airflow.utils.session import create_session
from intergiro_provider.hooks.intergiro import IntergiroHook

def run(arguments):
    print("$ airflow", *arguments, flush=True)
    args = get_parser().parse_args(arguments)
    args.func(args)

for group in json.load(sys.stdin):
    with create_session() as session:
        session.query(Connection).delete()
        session.query(Variable).delete()
    if group[0][:2] != ["connections", "add"]:
        run(["connections", "add", "intergiro_default", "--conn-json", os.environ["SEED"]])
    for arguments in group:
        if arguments[:2] == ["variables", "delete"]:
            Variable.set(arguments[2], "{}")
    for arguments in group:
        asks = arguments[-2:] == ["session", "reset"]
        run(arguments + ["--yes"] * asks)
        if arguments[:2] == ["connections", "add"] and "intergiro" in arguments:
            print("settings:", IntergiroHook(arguments[2]).settings)
print("ALL RAN")
"""

#: Replaces a program: records its arguments.
STUB = """#!/bin/sh
exec "{python}" -S -c 'import json, sys; open(sys.argv[1], "a").write(json.dumps(sys.argv[2:]) + "\\n")' \\
    "{log}" {name} "$@"
"""


@pytest.fixture(scope="module")
def bank(airflow_db: Path) -> Iterator[Sandbox]:
    with Sandbox(transactions=600, days=5) as started:
        yield started


def environment(bank: Sandbox, **more: str) -> dict[str, str]:
    """Return the environment of the tests, with the connection that the snippets use."""
    return {**os.environ, "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(), **more}


def ran(command: list[str], **options: Any) -> str:
    """Run a command and return its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    return done.stdout


def test_every_block_says_what_it_is() -> None:
    known = CODE | {"text", "sql"}  # SQL is not run, because it needs a warehouse with rows
    unknown = [f"{s}: {s.language!r}" for s in all_snippets() if s.language not in known and s.language[:1] != "{"]
    assert unknown == []


def test_a_block_is_not_run_only_where_a_comment_says_why() -> None:
    page = "<!-- snippet: not run, it is long -->\n```sh\nmake x\n```\n\n  ```python\n  1 / 0\n  ```\n"
    assert list(snippets_of(page)) == [
        Snippet("", 2, "sh", "make x\n", "it is long"),
        Snippet("", 6, "python", "1 / 0\n", None),
    ]
    assert len(runnable("python")) > 8


def test_a_block_for_newer_versions_is_run_on_those() -> None:
    this, newer = "{}.{}".format(*AIRFLOW), f"{AIRFLOW[0]}.{AIRFLOW[1] + 1}"
    page = "".join(f"<!-- snippet: from Airflow {since} on -->\n```python\n```\n" for since in (this, newer))
    assert [snippet.not_run for snippet in snippets_of(page)] == [None, f"it needs Airflow {newer}"]


def is_a_dag(snippet: Snippet) -> bool:
    """Return whether a snippet creates tasks. Other snippets run as plain Python."""
    return "@dag" in snippet.text or bool(re.search(r"^Intergiro\w+Operator\(", snippet.text, re.MULTILINE))


def test_dags_run(bank: Sandbox, tmp_path: Path) -> None:
    """Each DAG, and each operator without a DAG, runs for the last day."""
    dags, lake = tmp_path / "dags", tmp_path / "lake"
    dags.mkdir()
    # test_dags_examples.py runs the DAG of the README, which the tutorial repeats.
    snippets = [snippet for snippet in runnable("python") if is_a_dag(snippet) and snippet.page != "README.md"]
    assert len(snippets) > 5
    for snippet in snippets:
        text = snippet.text
        for place in LAKES:
            text = text.replace(place, f"file://{lake}/{snippet.name}/")
        if "@dag" not in text:
            text = DAG_AROUND.format(name=snippet.name, body=textwrap.indent(text, "    "))
        (dags / f"{snippet.name}.py").write_text(text)

    command = [sys.executable, "-c", RUN, str(dags), json.dumps([[datetime.now(UTC).isoformat(), {}, None]])]
    said = ran(command, env=environment(bank, AIRFLOW__CORE__DAGS_FOLDER=str(dags)))

    assert "RESULT " in said, said[-6000:]
    [runs] = json.loads(said.split("RESULT ", 1)[1].splitlines()[0])
    assert len(runs) == len(snippets), "each has a DAG id of its own"
    states = {f"{dag_id}.{task[0]}": task[2].rpartition(".")[2].lower() for dag_id, ts in runs.items() for task in ts}
    assert set(states.values()) == {"success"}, (states, said[-6000:])
    assert all(list(lake.glob(f"{s.name}/**/_manifest.json")) for s in snippets if "ObjectStorage" in s.text)


def test_python_runs(bank: Sandbox, tmp_path: Path) -> None:
    files = []
    for snippet in runnable("python"):
        if not is_a_dag(snippet):
            file = tmp_path / f"{snippet.name}.py"
            file.write_text(snippet.text)
            files.append(str(file))
    assert files
    said = ran([sys.executable, "-c", EXECUTE, *files], env=environment(bank), cwd=tmp_path)
    assert "ALL RAN" in said, said[-4000:]


@pytest.mark.parametrize("snippet", runnable("json"), ids=str)
def test_json_is_valid(snippet: Snippet) -> None:
    document = json.loads(snippet.text)
    extra = document.get("extra", document) if isinstance(document, dict) else {}
    if document.get("conn_type") == "intergiro" or set(extra) <= KNOWN_EXTRAS:
        read_settings(host=None, port=None, schema=None, password="a-key", extra=extra, conn_id="x")
    else:
        assert "pull_id" in document, "neither a connection nor a manifest"


@pytest.mark.parametrize("snippet", runnable("ini"), ids=str)
def test_settings_of_airflow_are_there(snippet: Snippet) -> None:
    from airflow.configuration import conf

    read = configparser.ConfigParser(interpolation=None)
    read.read_string(snippet.text)
    for section in read.sections():
        if section == "api_auth" and section not in conf.configuration_description:
            continue  # Airflow 2
        for option in read[section]:
            assert option in conf.configuration_description[section]["options"], f"[{section}] {option}"


@pytest.mark.parametrize("snippet", runnable("yaml"), ids=str)
def test_yaml_is_valid(snippet: Snippet) -> None:
    assert yaml.safe_load(snippet.text)


def called(snippet: Snippet, bank: Sandbox, home: Path) -> list[list[str]]:
    """Run a snippet's shell commands with replaced programs, and return the arguments of each call."""
    log, stubs = home / "calls", home / "bin"
    stubs.mkdir(parents=True)
    log.touch()
    for name in ("airflow", "pip", "make", "python"):
        stub = stubs / name
        stub.write_text(STUB.format(python=sys.executable, log=log, name=name))
        stub.chmod(0o755)
    key = bank.settings()["api_keys"][0]
    env = {
        "HOME": str(home),
        "PATH": f"{stubs}:/usr/bin:/bin",
        "INTERGIRO_API_KEY": key,
        "INTERGIRO_STAGING_KEY": key,
    }
    done = subprocess.run(
        ["bash", "-euc", snippet.text], env=env, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{snippet}: {done.stderr}"
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_shell_commands_run(bank: Sandbox, tmp_path: Path) -> None:
    """`airflow` runs, in the metadata database of the tests. pip and make are replaced."""
    tutorial = next(s for s in runnable("python") if s.page == "docs/tutorial.md")
    dags = tmp_path / "dags"
    dags.mkdir()
    text = tutorial.text.replace(LAKES[1], f"file://{tmp_path}/lake/")
    # A failed attempt would cost a wait.
    (dags / "nightly_transactions.py").write_text(text.replace("retries=3", "retries=0"))
    targets = set(re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    port = str(bank.port)
    groups = []
    for number, snippet in enumerate(runnable("sh")):
        group = []
        for program, *arguments in called(snippet, bank, tmp_path / str(number)):
            if program == "airflow" and arguments[0] == "intergiro" and AIRFLOW < (3, 0):
                continue  # commands of providers need Airflow 3
            if program == "airflow":
                group.append([argument.replace("8765", port) for argument in arguments])
            elif program == "make":
                assert set(arguments) <= targets, f"{snippet}: make {arguments}"
            elif program == "pip":
                assert arguments[0] == "install"
            else:
                assert arguments[:2] == ["-m", "intergiro_provider.sandbox"], f"{snippet}: python {arguments}"
                parser().parse_args(arguments[2:])
        groups += [group] if group else []
    assert len(groups) > 4

    said = ran(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(groups),
        env={
            **os.environ,
            "SEED": bank.connection(),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        },
    )

    assert "ALL RAN" in said, said[-6000:]
    assert said.count("Connection success!") == sum(a[:2] == ["connections", "test"] for g in groups for a in g)
    assert list((tmp_path / "lake").glob("transactions/*/_manifest.json")), said[-3000:]


def test_extras_that_pages_name_are_there() -> None:
    named = {
        extra
        for snippet in all_snippets()
        for extras in re.findall(r"airflow-provider-intergiro\[([a-z0-9,]+)\]", snippet.text)
        for extra in extras.split(",")
    }
    assert named
    assert named <= set(metadata("airflow-provider-intergiro").get_all("Provides-Extra") or ())
