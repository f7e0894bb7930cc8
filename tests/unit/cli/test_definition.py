# SPDX-License-Identifier: Apache-2.0
"""The commands' definitions, for Airflow and for `python -m intergiro_provider`."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from typing import Any

import pytest

from intergiro_provider.__main__ import parser
from intergiro_provider.cli import commands
from intergiro_provider.cli.definition import get_intergiro_cli_commands
from intergiro_provider.get_provider_info import get_provider_info

ALL = [["session", "show"], ["session", "renew"], ["session", "reset"], ["session", "prune"], ["check"]]

IMPORTED = """
import sys
import airflow.cli.cli_config
before = set(sys.modules)
from intergiro_provider.cli.definition import get_intergiro_cli_commands
get_intergiro_cli_commands()
print("IMPORTED", *sorted(set(sys.modules) - before))
"""


def airflow_parser() -> argparse.ArgumentParser:
    """Return the parser of `airflow`; skip the test if it has no commands of providers."""
    from airflow import __version__

    if tuple(map(int, __version__.split(".")[:2])) < (3, 2):
        pytest.skip("this Airflow has no commands of providers")
    from airflow.cli.cli_parser import get_parser

    made: argparse.ArgumentParser = get_parser()
    return made


def test_the_start_of_airflow_is_not_slowed_down() -> None:
    """Airflow imports this module for every command, so it must import no other module."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    [imported] = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    # With an editable installation, the package itself is imported already.
    assert set(imported) - {"intergiro_provider"} == {"intergiro_provider.cli", "intergiro_provider.cli.definition"}


def test_the_provider_info_names_the_function() -> None:
    [path] = get_provider_info()["cli"]
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is get_intergiro_cli_commands


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_leads_to_its_function(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(commands, "_".join(words), called.append)

    given = parser().parse_args([*words, "--conn-id", "bank", "--output", "json"])
    given.func(given)

    assert called == [given]
    assert (given.conn_id, given.output) == ("bank", "json")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_what_is_not_said_is_the_default_connection_and_text(words: list[str]) -> None:
    given = parser().parse_args(words)
    assert (given.conn_id, given.output) == ("intergiro_default", "text")
    for careful in ("yes", "force", "login"):
        assert not getattr(given, careful, False)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_airflow_takes_the_same_words(words: list[str]) -> None:
    theirs = vars(airflow_parser().parse_args(["intergiro", *words]))
    ours = vars(parser().parse_args(words))
    assert theirs.keys() == ours.keys()
    assert {name: value for name, value in theirs.items() if name != "func"} == {
        name: value for name, value in ours.items() if name != "func"
    }


@pytest.mark.parametrize("words", [[], ["session"], *ALL], ids=" ".join)
def test_help_can_be_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A single percent sign in a help text raises an error only when the help is printed."""
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args([*words, "--help"])
    assert "usage: python -m intergiro_provider" in capsys.readouterr().out


def test_airflow_lists_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        airflow_parser().parse_args(["--help"])
    assert "intergiro" in capsys.readouterr().out
