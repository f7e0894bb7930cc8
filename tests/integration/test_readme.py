# SPDX-License-Identifier: Apache-2.0
"""The README's DAG, run as it stands but for the place where its files go."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.pulls import written
from tests.integration.test_dags_examples import RUN, day_before

pytestmark = [pytest.mark.integration, pytest.mark.slow]

README = Path(__file__).parents[2] / "README.md"
LAKE = "s3://aws_default@lake/"


def test_the_readmes_dag_pulls_the_day_before(sandbox: Sandbox, airflow_db: Path, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert snippet.count(LAKE) == 1
    dags, target = tmp_path / "dags", tmp_path / "lake"
    dags.mkdir()
    (dags / "readme.py").write_text(snippet.replace(LAKE, f"file://{target}/"))
    environment = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW_CONN_INTERGIRO_DEFAULT": sandbox.connection(),
    }
    at = datetime.now(UTC)

    done = subprocess.run(
        [sys.executable, "-c", RUN, str(dags), at.isoformat()],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert "RESULT " in done.stdout, (done.stdout + done.stderr)[-4000:]
    (manifest_file,) = target.glob("transactions/*/_manifest.json")
    manifest, lines = written(manifest_file.parent)
    day, end = day_before(at)
    expected = sandbox.records("/v3/transactions", created_from=day.isoformat(), created_to=end.isoformat())
    assert manifest_file.parent.name == f"{day:%Y-%m-%d}"
    assert manifest["rows"] == len(expected) > 0
    assert sorted(lines) == sorted(expected)
