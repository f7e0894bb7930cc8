# SPDX-License-Identifier: Apache-2.0
"""The operator into Parquet, against a bank over real sockets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError
from intergiro_provider.sandbox import Sandbox
from tests.integration.pulls import bank, pull, shared_bank, transfer
from tests.unit.pull.columns import expected_rows, read

pytestmark = pytest.mark.integration

__all__ = ["bank", "shared_bank"]  # fixtures


def pull_all(path: Path, **arguments: Any) -> dict[str, Any]:
    """Pull the whole list into Parquet, in small pages and several windows."""
    now = datetime.now(UTC)
    bounds = {"created_from": now - timedelta(days=400), "created_to": now + timedelta(days=1)}
    return pull(path, **{**bounds, "file_format": "parquet", "query": {"limit": 10}, **arguments})


def table(path: Path) -> Any:
    """Return the written rows as one table. Check the manifest, the directory, and that all parts have one schema."""
    found = read(LocalFileSystem(skip_instance_cache=True), str(path))
    together = ds.dataset(sorted(map(str, path.glob("part-*.parquet"))), format="parquet").to_table()
    assert together.equals(found)
    return found


@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_every_record_as_it_was(bank: Sandbox, tmp_path: Path, windows: int, compression: str | None) -> None:
    bank.set(latency=0.005)
    manifest = pull_all(
        tmp_path,
        max_parallel_windows=windows,
        compression=compression,
        query={"limit": 10, "sort_by": "created_at", "sort_type": "ASC"},
    )
    found = table(tmp_path)
    records = [json.loads(r) for r in bank.records()]
    assert found.to_pylist() == expected_rows(records, found.schema)
    assert json.loads((tmp_path / "_manifest.json").read_bytes()) == manifest
    assert (manifest["rows"], manifest["first_id"]) == (len(records), records[0]["id"])
    assert [part["path"] for part in manifest["parts"]] == [f"part-00000-{manifest['pull_id']}.parquet"]
    types = dict(zip(found.schema.names, found.schema.types, strict=True))
    assert types["amount"] == types["payment_amount"] == types["x_ledger"] == pa.int64()
    assert types["exchange_rate"] == pa.float64()
    assert types["created_at"] == types["updated_at"] == pa.timestamp("us", tz="UTC")
    assert max(found.column("amount").to_pylist()) > 2**53


def test_raw_timestamps(bank: Sandbox, tmp_path: Path) -> None:
    pull_all(tmp_path, parquet_timestamps="raw", query={"sort_by": "created_at", "sort_type": "ASC"})
    assert table(tmp_path).column("created_at").to_pylist() == [json.loads(r)["created_at"] for r in bank.records()]


def test_lists_that_drift(bank: Sandbox, tmp_path: Path) -> None:
    for fields in (
        {"note": None, "meta": {}, "exchange_rate": 1},
        {"note": "now a string", "meta": {"tags": []}, "amount": 2**63},
        {"meta": {"tags": [1, None]}, "reference": {"text": "an object now"}, "exchange_rate": 1.25},
        {"settled_at": "2026-01-01T00:00:00.123456+01:00"},
    ):
        bank.add_transactions(1, **fields)
    pull_all(tmp_path)
    found = table(tmp_path)
    # The sandbox writes JSON without spaces.
    records = [json.loads(r) for r in bank.records()]
    rows = found.to_pylist()
    assert {row["id"] for row in rows} == {r["id"] for r in records}
    types = dict(zip(found.schema.names, found.schema.types, strict=True))
    assert types["amount"] == types["reference"] == pa.string()
    assert types["meta"] == pa.struct([("tags", pa.list_(pa.int64()))])
    assert types["settled_at"] == pa.timestamp("us", tz="UTC")
    by_id = {row["id"]: row for row in rows}
    for record in records:
        row = by_id[record["id"]]
        assert json.loads(row["amount"]) == record["amount"]
        assert json.loads(row["reference"]) == record["reference"]
        assert row["note"] == record.get("note")
        assert row["exchange_rate"] == record["exchange_rate"]
        assert row["meta"] == ({"tags": record["meta"].get("tags")} if "meta" in record else None)


def test_other_lists(bank: Sandbox, tmp_path: Path) -> None:
    for endpoint in ("accounts", "/v3/cards", "individuals"):
        manifest = pull(tmp_path / endpoint.strip("/"), endpoint=endpoint, file_format="parquet")
        found = table(tmp_path / endpoint.strip("/"))
        assert manifest["rows"] == found.num_rows > 0
        records = bank.records(f"/v3/{endpoint.rpartition('/')[2]}")
        assert {row["id"] for row in found.to_pylist()} == {json.loads(r)["id"] for r in records}


def test_nothing_there(bank: Sandbox, tmp_path: Path) -> None:
    manifest = pull(tmp_path, created_from="1999-01-01", created_to="1999-01-02", file_format="parquet")
    assert (manifest["parts"], manifest["rows"], manifest["bytes"]) == ([], 0, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["_manifest.json"]


def test_a_failure_leaves_the_former_result(bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = pull_all(tmp_path)
    before = table(tmp_path)
    bank.fault("garbled", path="/v3/transactions", skip=20, how="cut")
    with pytest.raises(IntergiroResponseError):
        pull_all(tmp_path)
    bank.clear_faults()
    assert json.loads((tmp_path / "_manifest.json").read_bytes()) == former
    assert table(tmp_path).equals(before)


def test_being_killed_while_parquet_is_written(bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = pull_all(tmp_path)
    operator = transfer(tmp_path, file_format="parquet", query={"limit": 100})
    monkeypatch.setattr("intergiro_provider.pull.parquet.BLOCK", 1000)
    from intergiro_provider.pull.parquet import _Writer

    write, blocks = _Writer.write, []

    def killed(self: Any, lines: bytes) -> None:
        blocks.append(lines)
        if len(blocks) == 3:
            operator.on_kill()  # as from the signal handler of Airflow 3
        write(self, lines)

    monkeypatch.setattr(_Writer, "write", killed)
    with pytest.raises(IntergiroError, match="Nothing was published"):
        operator.execute({})
    assert len(blocks) == 3
    assert json.loads((tmp_path / "_manifest.json").read_bytes()) == former
    table(tmp_path)


def test_without_pyarrow_nothing_is_asked_of_the_bank(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "intergiro_provider.pull.parquet", None)
    with pytest.raises(IntergiroValueError, match=r"`file_format`.*\[parquet\]"):
        pull(tmp_path, file_format="parquet")
    assert bank.counters().requests == 0
    assert list(tmp_path.iterdir()) == []
