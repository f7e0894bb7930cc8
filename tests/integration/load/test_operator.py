# SPDX-License-Identifier: Apache-2.0
"""The operator: from a pull's `path` to a result, an asset event and lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator
from tests.integration.load.world import Bank, Engine, pull, record
from tests.integration.pulls import shared_bank
from tests.integration.storage.conftest import lake, s3_port
from tests.integration.storage.s3 import Lake
from tests.integration.storage.trial import pull as pull_into

__all__ = ["lake", "s3_port", "shared_bank"]  # fixtures

pytestmark = pytest.mark.integration


def load(engine: Engine, path: Path) -> IntergiroToSqlOperator:
    return IntergiroToSqlOperator(task_id="load", path=f"file://{path}", table=engine.table(), **engine.where)


def test_result_and_lineage(engine: Engine, tmp_path: Path) -> None:
    manifest = pull(tmp_path / "1", Bank(record(0), record(1)), ("2026-01-01", "2026-01-02"))
    operator = load(engine, tmp_path / "1")
    assert operator.get_openlineage_facets_on_complete(None) is None
    result: dict[str, Any] = operator.execute({})
    assert result.pop("seconds") >= 0
    assert result == {
        "table": engine.table(), "pull_id": manifest.pull_id, "rows": 2, "inserted": 2, "changed": 0, "unchanged": 0,
        "vanished": 0, "replaced": 0, "already": False,
    }  # fmt: skip
    pytest.importorskip("airflow.providers.openlineage")
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert lineage is not None
    [source], [table] = lineage.inputs, lineage.outputs
    assert (source.namespace, source.name) == ("file", str(tmp_path / "1"))
    assert table.namespace.startswith("duckdb:///" if engine.is_duck else "postgres://127.0.0.1:")
    assert table.name.endswith("main.transactions" if engine.is_duck else f".{engine.table()}")
    assert [field.name for field in table.facets["schema"].fields] == list(record(0))


@pytest.mark.parametrize("where", [{}, {"sql_conn_id": "a", "database": "/b"}])
def test_one_engine_is_named(where: dict[str, str]) -> None:
    with pytest.raises(IntergiroValueError, match="either `sql_conn_id`"):
        IntergiroToSqlOperator(task_id="load", path="/x", table="t", **where)


def test_no_manifest(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(IntergiroValueError, match=r"there is no _manifest\.json"):
        load(engine, tmp_path).execute({})


@pytest.mark.parametrize("how", [{"compression": "zstd"}, {"file_format": "parquet"}])
def test_from_an_object_store(engine: Engine, shared_bank: Sandbox, lake: Lake, how: dict[str, str]) -> None:
    place = lake.place("transactions")
    manifest = pull_into(place, **how)
    operator = IntergiroToSqlOperator(task_id="load", path=place.url, table=engine.table(), **engine.where)
    result: dict[str, Any] = operator.execute({})
    assert result["inserted"] == manifest["rows"] == len(shared_bank.records())
    assert engine.ask("SELECT count(*), sum(amount) FROM {t}") == [
        (manifest["rows"], sum(json.loads(each)["amount"] for each in shared_bank.records()))
    ]
    assert operator.execute({})["already"]
