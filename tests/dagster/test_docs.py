# SPDX-License-Identifier: Apache-2.0
"""The snippets of the page on Dagster, the package's README and the examples work as shown."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_intergiro import IntergiroComponent
from intergiro_provider.sandbox import Sandbox
from tests.dagster.conftest import ROOT

PAGE = ROOT / "docs" / "how-to" / "dagster.md"
README = ROOT / "packaging" / "dagster" / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


SNIPPETS = [
    *(pytest.param(text, id=f"{page.stem}-{number}") for page in (PAGE, README)
      for number, text in enumerate(blocks(page, "python"))),
    *(pytest.param(path.read_text(), id=path.stem) for path in sorted((ROOT / "dagster_examples").glob("[!_]*.py"))),
]  # fmt: skip


@pytest.mark.parametrize("code", SNIPPETS)
@pytest.mark.parametrize("sandbox", [{"transactions": 50, "now": "2026-02-01T00:00:00Z"}], indirect=True)
def test_a_snippet_pulls(code: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERGIRO_API_KEY", sandbox.api_key)
    lake = tmp_path / "lake"
    code = re.sub(r"(s3://|/var/)lake", str(lake), code).replace(
        "IntergiroResource(", f"IntergiroResource(host={sandbox.url!r}, "
    )
    module = tmp_path / "snippet.py"
    module.write_text(code)
    defs: dg.Definitions = runpy.run_path(str(module))["defs"]
    job = defs.resolve_implicit_global_asset_job_def()
    partition = "2026-01-30" if job.partitions_def else None
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, partition_key=partition).success
    assert list(lake.rglob("_manifest.json"))
    assert sandbox.counters().logins == 1


def test_the_yaml_is_a_component() -> None:
    (text,) = blocks(PAGE, "yaml")
    attributes = yaml.safe_load(text)["attributes"]
    IntergiroComponent.model().model_validate(attributes)


def test_the_shell_commands_are_those_that_the_components_tests_run() -> None:
    commands = "".join(blocks(PAGE, "sh"))
    assert "dg scaffold defs dagster_intergiro.IntergiroComponent bank --endpoint" in commands
    assert "python -m dagster_intergiro.sandbox" in commands
