# SPDX-License-Identifier: Apache-2.0
"""Assets, with real pulls from the sandbox in this process."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_intergiro import (
    DagsterIntergiroTranslator,
    IntergiroPull,
    IntergiroResource,
    build_intergiro_asset_specs,
    intergiro_assets,
)
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.sandbox import Sandbox
from tests.dagster.conftest import metadata
from tests.dagster.reading import ids_in

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DATA = {"now": NOW.isoformat(), "transactions": 300, "days": 30}
DAYS = dg.DailyPartitionsDefinition(start_date="2026-02-01", end_date="2026-03-01")


def assets_of(*pulls: IntergiroPull, **arguments: Any) -> dg.AssetsDefinition:
    @intergiro_assets(specs=pulls, name="bank", **arguments)
    def bank(context: dg.AssetExecutionContext, intergiro: IntergiroResource):
        yield from intergiro.run(context)

    return bank


def resource_of(bank: Sandbox, **fields: Any) -> IntergiroResource:
    return IntergiroResource(**{"api_key": bank.api_key, "host": bank.url, **fields})


def materialize(bank: Sandbox, assets: dg.AssetsDefinition, **arguments: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize([assets], resources={"intergiro": resource_of(bank)}, raise_on_error=False, **arguments)


@pytest.mark.parametrize("sandbox", [DATA], indirect=True)
@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_an_asset_is_a_list_and_its_event_says_what_came(sandbox: Sandbox, tmp_path: Path, file_format: str) -> None:
    target = tmp_path / "transactions"
    pull = IntergiroPull(endpoint="/v3/transactions", path=str(target), file_format=file_format)
    result = materialize(sandbox, assets_of(pull, checks=True))

    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey(["intergiro", "transactions"])
    shown = metadata(event)
    manifest = json.loads((target / "_manifest.json").read_text())
    assert shown["dagster/row_count"] == manifest["rows"] == 300
    assert shown["dagster/uri"] == target.as_uri()
    assert (shown["bytes"], shown["parts"]) == (manifest["bytes"], len(manifest["parts"]))
    assert shown["manifest"] == str(target / "_manifest.json")
    columns = {
        column.name: column.type for column in event.materialization.metadata["dagster/column_schema"].schema.columns
    }
    assert {"id": "string", "amount": "integer", "created_at": "timestamp"}.items() <= columns.items()
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True] * 3
    if file_format == "jsonl":
        assert sorted(ids_in(target)) == sorted(ids_in(sandbox.records()))


@pytest.mark.parametrize("sandbox", [DATA], indirect=True)
def test_a_range_of_ten_partitions_is_one_run_with_ten_events(sandbox: Sandbox, tmp_path: Path) -> None:
    assets = assets_of(IntergiroPull(endpoint="transactions", path=str(tmp_path)), partitions_def=DAYS)
    keys = [f"2026-02-{day:02}" for day in range(11, 21)]
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        result = materialize(sandbox, assets, instance=instance, tags=tags)
        assert result.success
        assert len(instance.get_runs()) == 1

    events = result.get_asset_materialization_events()
    assert sorted(event.partition for event in events) == keys
    for event in events:
        start = datetime.fromisoformat(event.partition).replace(tzinfo=UTC)
        expected = ids_in(
            sandbox.records(created_from=start.isoformat(), created_to=(start + timedelta(1)).isoformat())
        )
        assert sorted(ids_in(tmp_path / event.partition)) == sorted(expected)
        assert metadata(event)["dagster/row_count"] == len(expected)
    assert not list(tmp_path.rglob("_dagster.json"))
    assert sandbox.counters().logins == 1
    assert assets.backfill_policy == dg.BackfillPolicy.single_run()


@pytest.mark.parametrize("sandbox", [DATA], indirect=True)
def test_a_retried_range_does_not_pull_what_it_has_pulled(sandbox: Sandbox, tmp_path: Path) -> None:
    assets = assets_of(
        IntergiroPull(endpoint="transactions", path=str(tmp_path), max_parallel_windows=1),
        partitions_def=DAYS,
        retry_policy=dg.RetryPolicy(max_retries=2),
    )
    sandbox.fault("repeat_record", "/v3/transactions", skip=1, times=1)  # the second partition's first try
    tags = {"dagster/asset_partition_range_start": "2026-02-11", "dagster/asset_partition_range_end": "2026-02-13"}
    result = materialize(sandbox, assets, tags=tags)

    assert result.success
    events = result.get_asset_materialization_events()
    assert [metadata(event)["dagster/row_count"] > 0 for event in events] == [True] * 3
    assert sandbox.counters().by_path["GET /v3/transactions"] == 4
    assert not list(tmp_path.rglob("_dagster.json"))


@pytest.mark.parametrize("sandbox", [DATA], indirect=True)
@pytest.mark.parametrize("keys", [{"partition_key": "2026-02-11"}, {}], ids=["partition", "whole list"])
def test_a_retry_resumes_inside_of_a_list(
    sandbox: Sandbox, tmp_path: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = IntergiroPull(
        endpoint="transactions", path=str(tmp_path), max_parallel_windows=1, query={"limit": 2 if keys else 100}
    )
    policy = dg.RetryPolicy(max_retries=1)
    assets = assets_of(pull, partitions_def=DAYS if keys else None, retry_policy=policy)
    # The pull fails instead of waiting so long. Here the step is retried at once.
    sandbox.fault("status", "/v3/transactions", status=429, retry_after="1000", skip=2, times=1)
    monkeypatch.setattr("dagster_intergiro.errors.seconds_to_wait", lambda error: 0.0)
    (tmp_path / "_dagster.json").write_text('{"run": "another", "intergiro_pull": {}}')
    result = materialize(sandbox, assets, **keys)

    assert result.success
    (manifest,) = tmp_path.rglob("_manifest.json")
    ids = ids_in(manifest.parent)
    assert len(set(ids)) == len(ids)
    pages = -(-len(ids) // (2 if keys else 100))
    # The page that failed is requested twice, those before it once.
    assert sandbox.counters().by_path["GET /v3/transactions"] == pages + 1
    assert pages > 2
    assert not (manifest.parent / "_dagster.json").exists()


def test_static_partitions_fill_path_endpoint_and_query() -> None:
    pull = IntergiroPull(
        endpoint="accounts/{partition}/transactions", path="/lake/{partition}/x", query={"account_id": "{partition}"}
    ).of_partition("a/1")
    assert (pull.endpoint, pull.path, pull.query) == ("accounts/a/1/transactions", "/lake/a-1/x", {"account_id": "a/1"})


@pytest.mark.parametrize(
    ("endpoint", "name", "key"),
    [
        ("transactions", None, "transactions"),
        ("/v3/transactions?limit=5", None, "transactions"),
        ("individuals/17/payment_methods", None, "individuals_17_payment_methods"),
        ("transactions", "card payments", "card_payments"),
    ],
)
def test_the_asset_key_comes_from_the_endpoint(endpoint: str, name: str | None, key: str) -> None:
    (spec,) = build_intergiro_asset_specs([IntergiroPull(endpoint=endpoint, path="/lake", name=name)])
    assert spec.key == dg.AssetKey(["intergiro", key])


def test_a_translator_changes_the_spec() -> None:
    class Mine(DagsterIntergiroTranslator):
        def get_asset_spec(self, pull: IntergiroPull) -> dg.AssetSpec:
            return super().get_asset_spec(pull).replace_attributes(key=["bank", pull.short_name], group_name="bank")

    pull = IntergiroPull(endpoint="transactions", path="/lake")
    assets = assets_of(pull, translator=Mine())
    assert assets.keys == {dg.AssetKey(["bank", "transactions"])}
    assert set(assets.group_names_by_key.values()) == {"bank"}


@pytest.mark.parametrize(
    ("pulls", "arguments", "message"),
    [
        ([{"path": "lake"}], {}, "`path` is 'lake'"),
        ([{"file_format": "csv"}], {}, "`file_format`"),
        ([{"created_from": "2026-01-01"}], {}, "without `created_to`"),
        ([{"query": {"limit": 1000}}], {}, "`limit`"),
        ([{}, {}], {}, "same asset key"),
        ([{}, {"name": "other"}], {}, "same `path`"),
        ([{"created_from": "2026-01-01", "created_to": "2026-02-01"}], {"partitions_def": DAYS}, "`partitions_def`"),
        ([{}], {"partitions_def": dg.StaticPartitionsDefinition(["a"])}, "would hold the same list"),
        ([{}], {"partitions_def": dg.MultiPartitionsDefinition({"day": DAYS, "x": DAYS})}, "several dimensions"),
    ],
)
def test_what_cannot_work_is_refused_when_the_code_loads(pulls: list[Any], arguments: Any, message: str) -> None:
    with pytest.raises(IntergiroValueError, match=re.escape(message)):
        assets_of(
            *(IntergiroPull(**{"endpoint": "transactions", "path": "/lake", **pull}) for pull in pulls), **arguments
        )


@pytest.mark.parametrize("sandbox", [DATA], indirect=True)
def test_a_resource_works_in_code_of_ones_own(sandbox: Sandbox, tmp_path: Path) -> None:
    intergiro = resource_of(sandbox)
    assert len(list(intergiro.iter_records("transactions"))) == 300
    manifest = intergiro.pull_to(
        str(tmp_path / "x"), "transactions", created_from="2026-02-11", created_to="2026-02-12"
    )
    assert manifest.rows == len(
        ids_in(sandbox.records(created_from="2026-02-11T00:00:00Z", created_to="2026-02-12T00:00:00Z"))
    )
    response = intergiro.get_client().request("GET", "accounts", {"limit": 1})
    assert response.status_code == 200
    assert sandbox.counters().logins == 1
    agent = dict(sandbox.requests()[-1]["headers"])["user-agent"]
    assert "Dagster" in agent
    assert "Airflow" not in agent
