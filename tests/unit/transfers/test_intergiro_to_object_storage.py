# SPDX-License-Identifier: Apache-2.0
"""The transfer's arguments: errors while the DAG is parsed, and checks at run time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, ClassVar

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, ObjectStoragePath

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull.arguments import checked_location
from intergiro_provider.pull.bounds import Interval
from intergiro_provider.pull.location import object_storage_path
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

DAY = {"created_from": "2026-01-31", "created_to": "2026-02-01"}


def operator(**arguments: Any) -> IntergiroToObjectStorageOperator:
    return IntergiroToObjectStorageOperator(
        **{"task_id": "pull", "endpoint": "transactions", "path": "file:///nowhere", **arguments}
    )


AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])


class TestWatermark:
    ASSET = Asset("transactions")

    @pytest.mark.skipif(AIRFLOW < (3, 3), reason="assets have a state from Airflow 3.3 on")
    def test_what_it_needs(self) -> None:
        assert operator(watermark=self.ASSET, outlets=[self.ASSET], **DAY).watermark == self.ASSET
        with pytest.raises(IntergiroValueError, match="one of the `outlets`"):
            operator(watermark=self.ASSET, **DAY)
        with pytest.raises(IntergiroValueError, match="one of the `outlets`"):
            operator(watermark=self.ASSET, outlets=[Asset("other")], **DAY)
        with pytest.raises(IntergiroValueError, match="needs `created_to`"):
            operator(watermark=self.ASSET, outlets=[self.ASSET])

    @pytest.mark.skipif(AIRFLOW >= (3, 3), reason="assets have a state")
    def test_an_older_airflow_says_so_at_once(self) -> None:
        with pytest.raises(IntergiroValueError, match="`watermark` needs Airflow 3.3"):
            operator(watermark=self.ASSET, outlets=[self.ASSET], **DAY)


class TestConstruction:
    def test_every_argument_of_the_contract(self) -> None:
        made = operator(
            query={"limit": 50},
            **DAY,
            file_format="parquet",
            compression="zstd",
            max_parallel_windows=8,
            lookback=timedelta(days=3),
            intergiro_conn_id="other",
        )
        assert (made.file_format, made.compression, made.max_parallel_windows) == ("parquet", "zstd", 8)
        assert made.intergiro_conn_id == "other"

    def test_defaults(self) -> None:
        made = operator()
        assert (made.file_format, made.compression, made.max_parallel_windows) == ("jsonl", None, 16)
        assert (made.created_from, made.created_to, made.lookback) == (None, None, None)
        assert made.intergiro_conn_id == "intergiro_default"

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"file_format": "csv"}, "`file_format`"),
            ({"compression": "lz4"}, "`compression`"),
            ({"max_parallel_windows": 0}, "`max_parallel_windows`"),
            ({"max_parallel_windows": "4"}, "`max_parallel_windows`"),
            ({"max_parallel_windows": True}, "`max_parallel_windows`"),
            ({"query": {"limit": 101}}, "`limit`"),
            ({"endpoint": "transactions?limit=101"}, "`limit`"),
            ({"query": {"sort_by": "updated_at"}}, "`sort_by` is `updated_at`"),
            ({"query": {"sort_by": ["updated_at"]}}, "`sort_by` is `updated_at`"),
            ({"endpoint": "transactions?sort_by=updated_at&x={{ ds }}"}, "`sort_by` is `updated_at`"),
            ({"query": {"account_ids": []}}, "`account_ids` in the query is an empty list"),
            ({"query": "limit=5"}, "`query` must be a dict"),
            ({"endpoint": "x?created_from=2026-01-01", **DAY}, "`created_from` is given twice"),
            ({"path": "file://rel/x"}, "relative to the directory of the process"),
            ({"query": {"ending_before": "x"}}, "`ending_before`"),
            ({"query": {"created_from": "2026-01-01"}, **DAY}, "`created_from`"),
            ({"created_from": "2026-01-31"}, "`created_to`"),
            ({"created_to": "{{ data_interval_end }}"}, "`created_from`"),
            ({"created_from": "2026-01-31", "created_to": "2026-01-31"}, "empty"),
            ({"created_from": "2026-02-01", "created_to": "2026-01-31"}, "reversed"),
            ({"created_from": datetime(2026, 1, 31), "created_to": "2026-02-01"}, "time zone"),
            ({"lookback": timedelta(days=1)}, "`lookback`"),
            ({"lookback": -timedelta(days=1), **DAY}, "`lookback`"),
            ({"lookback": "1 day", **DAY}, "`lookback`"),
        ],
    )
    def test_what_cannot_work_is_refused_when_the_dag_is_parsed(self, arguments: dict[str, Any], named: str) -> None:
        with pytest.raises(IntergiroValueError, match=named):
            operator(**arguments)

    def test_templates_are_not_judged_yet(self) -> None:
        operator(query={"limit": "{{ params.limit }}"}, created_from="{{ a }}", created_to="{% if b %}{% endif %}")
        operator(created_from=datetime(2026, 1, 31, tzinfo=UTC), created_to="{{ ds }}")

    def test_results_of_other_tasks_are_not_judged_yet(self) -> None:
        with DAG("dag", schedule=None):
            before = operator(task_id="before")
            made = operator(created_from=before.output["created_to"], created_to="2026-01-31")
        assert made.upstream_task_ids == {"before"}

    def test_templated_fields(self) -> None:
        made = operator(
            endpoint="{{ e }}", path="{{ p }}", query={"account_ids": ["{{ a }}"], "limit": "{{ l }}"},
            created_from="{{ f }}", created_to="{{ t }}", intergiro_conn_id="{{ c }}",
        )  # fmt: skip
        made.render_template_fields({name: name.upper() for name in "epalftc"})  # type: ignore[typeddict-item]
        assert (made.endpoint, made.path, made.intergiro_conn_id) == ("E", "P", "C")
        assert (made.created_from, made.created_to) == ("F", "T")
        assert made.query == {"account_ids": ["A"], "limit": "L"}


class TestFuture:
    NOW = datetime.now(UTC)

    def judged(self, start: timedelta, end: timedelta) -> Interval:
        return operator()._not_in_the_future(Interval(self.NOW + start, self.NOW + end))

    def test_an_interval_that_has_not_begun_is_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` .* is in the future"):
            self.judged(timedelta(hours=1), timedelta(hours=2))

    @pytest.mark.parametrize(("end", "warned"), [(-1, False), (1, True)])
    def test_an_interval_that_has_not_ended_is_pointed_out(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], end: int, warned: bool
    ) -> None:
        self.judged(timedelta(hours=-2), timedelta(hours=end))
        said = caplog.text + capfd.readouterr().out  # operators of Airflow 3 do not use the logging module
        assert ("`created_to`" in said and "`complete_until`" in said) is warned


class TestPath:
    @pytest.mark.parametrize(
        ("path", "location"),
        [
            ("s3://conn@lake//y/", "s3://conn@lake/y"),
            ("S3://lake/y//z", "s3://lake/y/z"),
            ("gs://lake", "gs://lake"),
            ("file:///data/x", "file:///data/x"),
            ("file:////data//x/", "file:///data/x"),
            ("file://localhost/data/x", "file:///data/x"),
            ("local:///data/x", "local:///data/x"),
            ("//data/x/ ", "/data/x"),
            ("memory://x//y", "memory://x/y"),
        ],
    )
    def test_one_form_for_one_directory(self, path: str, location: str) -> None:
        assert checked_location(path) == location

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            *[(path, "`path` must be a URL") for path in ("", "data/x", "./x", "transactions", "None")],
            *[(path, "is relative") for path in ("file://rel/x", "local://rel", "file://~/x", "file://./x")],
            *[(path, "names no directory") for path in ("file:///", "file://", "/", "local:////", "file://localhost/")],
            *[(path, "names no directory") for path in ("file:///.", "/x/..", "/..", "file://localhost//./")],
            *[(path, "names no bucket") for path in ("s3:///x", "s3:////lake/x", "gs://conn@/x")],
            ("s3://lake/../x", "`.` and `..`"),
        ],
    )
    def test_what_is_no_place_is_refused(self, path: str, said: str) -> None:
        for use in (object_storage_path, lambda path: operator(path=path)):
            with pytest.raises(IntergiroValueError, match=re.escape(said)):
                use(path)

    def test_the_package_of_a_store_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(location: str) -> None:
            raise ImportError("no s3fs")

        monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", refuse)
        with pytest.raises(IntergiroValueError, match=r"Install apache-airflow-providers-amazon\[s3fs\]"):
            object_storage_path("s3://lake/x")

    def test_an_unknown_protocol_is_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`path`: no file system for nosuch:// is installed"):
            object_storage_path("nosuch://bucket/x")

    def test_a_library_that_airflow_30_does_not_bear_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Incompatible(TypeError, ValueError):
            """Fails as an incompatible version of universal-pathlib does."""

        def refuse(location: str) -> None:
            raise Incompatible("ObjectStoragePath(...) detected protocol file which is incompatible")

        monkeypatch.setattr("airflow.providers.common.compat.sdk.ObjectStoragePath", refuse)
        with pytest.raises(IntergiroValueError, match="Install universal-pathlib<0.3"):
            object_storage_path("file:///x")


def test_on_kill_without_a_pull_does_nothing() -> None:
    operator().on_kill()


def test_a_link_that_cannot_be_stored_fails_no_pull() -> None:
    class NoXCom:
        asked: ClassVar[list[str]] = []

        def xcom_push(self, key: str, value: str) -> None:
            self.asked.append(key)
            raise ConnectionError

    operator()._link({"ti": NoXCom()}, ObjectStoragePath("gs://lake/x"))  # type: ignore[typeddict-item]
    assert NoXCom.asked == ["_link_IntergiroManifestLink"]
