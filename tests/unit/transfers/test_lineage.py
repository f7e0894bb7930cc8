# SPDX-License-Identifier: Apache-2.0
"""The lineage of a pull. The system tests check how OpenLineage's provider uses it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, ObjectStoragePath

from intergiro_provider.pull.pages import read_page
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.transfers.lineage import Lineage, fields_of, source_of, target_of

OPENLINEAGE = find_spec("openlineage") is not None
needs_openlineage = pytest.mark.skipif(not OPENLINEAGE, reason="OpenLineage is not installed beside this Airflow")


def notes() -> Lineage:
    return Lineage("https://3d.intergiro.com/v3/accounts", ObjectStoragePath("file:///data/accounts"))


def page(*records: Any) -> bytes:
    return json.dumps({"data": records, "has_more": False}).encode()


class TestNames:
    def test_of_a_list(self) -> None:
        assert source_of("https://3d.intergiro.com/v3/individuals/a5EX/payment_methods?limit=1") == (
            "https://3d.intergiro.com",
            "v3/individuals/a5EX/payment_methods",
        )

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("file:///data/x/", ("file", "/data/x")),
            ("/data/x", ("file", "/data/x")),
            ("file:///", ("file", "/")),
            ("gs://conn_id@lake/a/b/", ("gs://lake", "a/b")),
            ("gs://lake", ("gs://lake", "/")),
            ("abfs://conn_id@container/a", ("abfs://container", "a")),
        ],
    )
    def test_of_a_directory(self, url: str, expected: tuple[str, str]) -> None:
        assert target_of(ObjectStoragePath(url)) == expected

    @needs_openlineage
    @pytest.mark.parametrize("url", ["file:///data/x", "s3://lake/a/b"])
    def test_who_reads_the_directory_as_an_asset_reads_the_same(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset

        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
        theirs = translate_airflow_asset(Asset(uri=url), None)
        assert theirs is not None
        assert target_of(ObjectStoragePath(url)) == (theirs.namespace, theirs.name)


class TestFields:
    def test_names_in_their_order_with_the_types_of_json(self) -> None:
        record = {"id": "x", "amount": 1, "rate": 0.5, "open": True, "tags": [], "more": {"a": 1}, "note": None}
        assert list(fields_of([record]).items()) == [
            ("id", "string"), ("amount", "integer"), ("rate", "number"), ("open", "boolean"), ("tags", "array"),
            ("more", "object"), ("note", None),
        ]  # fmt: skip

    def test_of_all_records_of_a_page(self) -> None:
        records = [{"a": None, "b": 1, "c": 1}, {"a": "x", "b": 1.5, "c": "1", "d": True}, "no object", None]
        assert fields_of(records) == {"a": "string", "b": "number", "c": None, "d": "boolean"}

    def test_the_first_page_with_records_counts(self) -> None:
        made = notes()
        for body in (page(), page({"a": 1}), page({"b": 1})):
            made.add(read_page(body))
        assert made._fields == {"a": "integer"}

    def test_odd_json_is_read_as_the_pull_reads_it(self) -> None:
        made = notes()
        made.add(read_page(b'{"data": [{"a": 1' + b"0" * 400 + b'}], "has_more": false}'))
        assert made._fields == {"a": "integer"}


def test_without_openlineage_there_is_nothing_and_no_error() -> None:
    operator = IntergiroToObjectStorageOperator(task_id="pull", endpoint="accounts", path="file:///x")
    assert operator.get_openlineage_facets_on_complete(None) is None
    if not OPENLINEAGE:
        assert notes().to_openlineage() is None


@needs_openlineage
def test_before_a_page_has_come_there_are_names_only() -> None:
    lineage = notes().to_openlineage()
    assert lineage is not None
    [source], [target] = lineage.inputs, lineage.outputs
    assert (source.namespace, source.name) == ("https://3d.intergiro.com", "v3/accounts")
    assert (target.namespace, target.name) == ("file", "/data/accounts")
    assert (source.facets, target.facets, target.outputFacets) == ({}, {}, {})
