# SPDX-License-Identifier: Apache-2.0
"""No token or key is in plain text in DAGSTER_HOME, the database, logs, snapshots or output."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import dagster as dg
import pytest

from intergiro_provider.sandbox import Sandbox
from scripts.services import program
from tests.dagster.conftest import dagster
from tests.integration.session.services import missing

pytestmark = pytest.mark.integration


def contents(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sandbox", [{"process": True, "access_token_life": 3.0, "latency": 0.1}], indirect=True)
def test_no_token_and_no_key_is_anywhere(sandbox: Sandbox, dagster_home: Path, tmp_path: Path) -> None:
    run = dagster(
        *("asset", "materialize", "--select", "*"),
        module="tests.dagster.projects.fleet",
        STEPS="1",
        TARGET=str(tmp_path / "target"),
        BANK=sandbox.url,
        INTERGIRO_API_KEY=sandbox.api_key,
    )
    output = run.communicate()[0]
    assert run.returncode == 0, output[-3000:]
    places = {"output": output.encode(), "home": contents(dagster_home), "target": contents(tmp_path / "target")}
    if "postgres" in (dagster_home / "dagster.yaml").read_text():
        pg_dump = program("pg_dump", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin") or missing("no pg_dump")
        url = (dagster_home / "dagster.yaml").read_text().split("postgres_url: ")[1].split()[0]
        command = [pg_dump, "--inserts", url.replace("+psycopg2", "")]
        places["dump"] = subprocess.run(command, capture_output=True, check=True).stdout
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.get_runs()
        places["snapshot"] = dg.serialize_value(instance.get_job_snapshot(record.job_snapshot_id or "")).encode()
        places["log"] = "\n".join(entry.to_json() for entry in instance.all_logs(record.run_id)).encode()

    session = next(place for name, place in places.items() if name in ("dump", "home") and b"access_token" in place)
    assert b"intergiro_session_" in session
    secrets = [*sandbox.tokens(), sandbox.api_key]
    assert len(secrets) > 4
    found = [name for name, content in places.items() for secret in secrets if secret.encode() in content]
    assert found == []


def test_the_snapshot_of_a_code_location_names_the_variable_and_not_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_intergiro import IntergiroResource

    monkeypatch.setenv("INTERGIRO_API_KEY", "5a4db0c5-secret")
    resource = IntergiroResource(api_key=dg.EnvVar("INTERGIRO_API_KEY"))
    repository = dg.Definitions(assets=[dg.AssetSpec("x")], resources={"intergiro": resource}).get_repository_def()
    values = repository.get_top_level_resources()["intergiro"].config_schema.default_value
    assert values == {"api_key": {"env": "INTERGIRO_API_KEY"}}
    assert os.environ["INTERGIRO_API_KEY"] not in repr(resource)
