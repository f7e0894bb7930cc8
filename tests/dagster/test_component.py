# SPDX-License-Identifier: Apache-2.0
"""The component, in its own project, with the commands that users run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.dagster.reading import ids_in

pytestmark = pytest.mark.integration

PYPROJECT = """
[project]
name = "warehouse"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "warehouse"
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as `create-dagster project` makes it, without anything in it."""
    root = tmp_path / "project"
    (root / "warehouse" / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "warehouse" / "__init__.py").touch()
    (root / "warehouse" / "defs" / "__init__.py").touch()
    (root / "warehouse" / "definitions.py").write_text(DEFINITIONS)
    return root


def dg(project: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_a_scaffolded_component_is_valid_without_warnings_and_pulls(
    project: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    scaffolded = dg(project, "scaffold", "defs", "dagster_intergiro.IntergiroComponent", "bank")
    checked = dg(project, "check", "defs")
    assert "All definitions loaded successfully" in checked
    assert "warn" not in (scaffolded + checked).lower()

    defs = project / "warehouse" / "defs" / "bank" / "defs.yaml"
    target = tmp_path / "transactions"
    text = defs.read_text()
    assert "api_key_env: INTERGIRO_API_KEY" in text
    defs.write_text(
        text.replace("environment: staging", f"host: {sandbox.url}")
        .replace("/tmp/intergiro/transactions", str(target))
        .rstrip()
        + "\n      file_format: jsonl\n      query:\n        limit: 50\n  checks: true\n  group_name: bank\n"
    )
    dg(project, "launch", "--assets", "*", INTERGIRO_API_KEY=sandbox.api_key)
    assert sorted(ids_in(target)) == sorted(ids_in(sandbox.records()))


def test_partitions_are_written_in_yaml(project: Path) -> None:
    dg(project, "scaffold", "defs", "dagster_intergiro.IntergiroComponent", "bank", "--endpoint", "accounts")
    defs = project / "warehouse" / "defs" / "bank" / "defs.yaml"
    assert "endpoint: accounts" in defs.read_text()
    defs.write_text(
        defs.read_text().rstrip() + '\n  partitions_def:\n    type: daily\n    start_date: "2026-01-01"\n'
        "  resource:\n    read_timeout: 30\n"
    )
    code = (
        "from warehouse.definitions import defs\nfound = defs().resolve_all_asset_specs()\n"
        "print([(str(spec.key.to_user_string()), type(spec.partitions_def).__name__) for spec in found])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stdout == "[('intergiro/accounts', 'DailyPartitionsDefinition')]\n", done.stderr[-2000:]
