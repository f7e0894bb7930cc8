# SPDX-License-Identifier: Apache-2.0
"""Parquet: the values survive, and all parts are read as one table."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.pull import parquet
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.formats import get_format
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from intergiro_provider.pull.windows import ORDER
from tests.unit.pull.columns import expected_rows, is_text, read, read_parts
from tests.unit.pull.lists import ListInMemory, page, pages_of, record
from tests.unit.pull.pulling import NEW, Store, store
from tests.unit.pull.pulling import pull as pull_lines
from tests.unit.pull.stores import ObjectStore, names
from tests.unit.pull.test_windows import even, interval
from tests.unit.pull.timed import TimedList

__all__ = ["store"]  # a fixture


def pull(fs: Any, root: str, bank: Any, **request: Any) -> Manifest:
    """Pull into Parquet, in small pages and small parts."""
    return pull_lines(fs, root, bank, file_format="parquet", **request)


def column(*values: bytes, **request: Any) -> tuple[Any, list[Any]]:
    """Return the field and the values of the column for a field `x` with these JSON values, each on its own page."""
    fs = ObjectStore()
    records = [b'{"id":"%d","x":%b}' % (number, value) for number, value in enumerate(values)]
    pull(fs, "/lake", ListInMemory(records), query={"limit": 1}, part_bytes=5, **request)
    table = read(fs, "/lake")
    assert len(read_parts(fs, "/lake")) >= min(len(values), 2)
    return table.schema.field("x"), table.column("x").to_pylist()


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "type_", "expected"),
        [
            ([b"9007199254740993", b"-1", b"null"], pa.int64(), [9007199254740993, -1, None]),
            ([b"9223372036854775807", b"-9223372036854775808"], pa.int64(), [2**63 - 1, -(2**63)]),
            ([b"10.4500", b"7", b"4.2e-2"], pa.float64(), [10.45, 7.0, 0.042]),
            ([b"null", b'"late"'], pa.string(), [None, "late"]),
            ([b"null", b"null"], pa.string(), [None, None]),
            ([b"true", b"null"], pa.bool_(), [True, None]),
            ([b"[]", b"null", b"[]"], pa.list_(pa.string()), [[], None, []]),
            ([b"[]", b"[1,null]", b"[[]]"][:2], pa.list_(pa.int64()), [[], [1, None]]),
            ([b"[[1],[]]", b"[null,[2]]"], pa.list_(pa.list_(pa.int64())), [[[1], []], [None, [2]]]),
            (
                [b"{}", b'{"a":1}', b'{"b":{"c":"x"}}', b"null"],
                pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.string())]))]),
                [{"a": None, "b": None}, {"a": 1, "b": None}, {"a": None, "b": {"c": "x"}}, None],
            ),
            ([rb'"a\u0000\n\"\\ \ud83d\ude00"', b'""'], pa.string(), ['a\0\n"\\ 😀', ""]),
            ([b'"2026-01-01T00:00:00Z"'], pa.string(), ["2026-01-01T00:00:00Z"]),
            ([b'{"a":1,"a":"two","b":1}'], pa.struct([("a", pa.string()), ("b", pa.int64())]), [{"a": "two", "b": 1}]),
        ],
    )
    def test_of_a_field(self, values: list[bytes], type_: Any, expected: list[Any]) -> None:
        field, found = column(*values)
        assert (field.type, found, is_text(field)) == (type_, expected, False)

    @pytest.mark.parametrize(
        "values",
        [
            [b'"a"', b"1", b'{"a": [1,2]}', b"null"],
            [b"9223372036854775808", b"1"],
            [b"123456789012345678901234567890"],
            [b"1.10", b"9007199254740993"],
            [b"0.1000000000000000055511151231257827", b"1e400", b"7"],
            [b"{}", b"{}"],
            [b"[1]", b'{"a":1}'],
            [b"true", b'"true"'],
            [rb'"\ud83d"', b"1"],
        ],
    )
    def test_what_has_none_is_json_text_byte_for_byte(self, values: list[bytes]) -> None:
        field, found = column(*values)
        assert (field.type, is_text(field)) == (pa.string(), True)
        texts = [None if value == b"null" else value.decode() for value in values]
        if texts[0] == r'"\ud83d"':
            texts[0] = r'"\\ud83d"'  # the escape is stored as six characters
        assert found == texts

    def test_text_inside_of_structures(self) -> None:
        field, found = column(b'{"a":[{"b":1},{"b":"x","c":true}]}', b'{"a":[{"b":[ 1.0 ]},null]}')
        assert is_text(field.type.field("a").type.value_type.field("b"))
        assert found == [
            {"a": [{"b": "1", "c": None}, {"b": '"x"', "c": True}]},
            {"a": [{"b": "[ 1.0 ]", "c": None}, None]},
        ]

    def test_half_a_surrogate_pair_is_spelt_out(self) -> None:
        field, found = column(rb'"cut \ud83d"', rb'"\ud83d\ude00 whole"', rb'"\ude00\n\\ud83d"')
        assert (field.type, is_text(field)) == (pa.string(), False)
        assert found == [r"cut \ud83d", "😀 whole", "\\ude00\n\\ud83d"]

    def test_deep(self) -> None:
        deep = b"[" * 900 + b"1" + b"]" * 900
        field, found = column(deep, b"[[[]]]")
        type_, value, depth = field.type, found[0], 0
        while pa.types.is_list(type_):
            type_, [value], depth = type_.value_type, value, depth + 1
        assert 10 < depth < 20
        assert value == deep[depth:-depth].decode()
        assert found[1] == [[[]]]

    @pytest.mark.parametrize("name", ["", "a.b", "ID", "ä ö", 'quo"ted', "back\\slash", "nul\0", "new\nline", "f0"])
    def test_odd_names(self, store: Store, name: str) -> None:
        fs, root = store
        records = [{"id": str(n), name: n, "inner": {name: n}} for n in range(7)]
        pull(fs, root, ListInMemory([json.dumps(r).encode() for r in records]))
        assert read(fs, root).to_pylist() == records

    @pytest.mark.parametrize(
        ("answer", "type_", "values"),
        [
            (b'["SE1","SE2",null]', pa.string(), ["SE1", "SE2", None]),
            (b"[[1],[2,3]]", pa.list_(pa.int64()), [[1], [2, 3]]),
            (b'["a",{"b" : 1}]', pa.string(), ['"a"', '{"b" : 1}']),
            (b"[{},{}]", pa.string(), ["{}", "{}"]),
            (b"[null]", pa.string(), [None]),
        ],
    )
    def test_records_that_have_no_fields(self, store: Store, answer: bytes, type_: Any, values: list[Any]) -> None:
        fs, root = store
        assert pull(fs, root, lambda query: answer).rows == len(values)
        table = read(fs, root)
        assert table.schema.names == ["value"]
        assert (table.schema.types, table.column("value").to_pylist()) == ([type_], values)


class TestMoments:
    MOMENTS = (
        b'"2026-01-01T00:00:00Z"',
        b'"2026-01-01T01:00:00.123456+02:00"',
        b'"2024-02-29t23:59:59.5z"',
        b'"9999-12-31T23:59:59.999999Z"',
    )

    def created(self, *values: bytes, **request: Any) -> tuple[Any, list[Any]]:
        fs = ObjectStore()
        records = [b'{"id":"%d","created_at":%b}' % (number, value) for number, value in enumerate(values)]
        pull(fs, "/lake", ListInMemory(records), **request)
        found = read(fs, "/lake").column("created_at")
        return found.type, found.to_pylist()

    def test_typed(self) -> None:
        type_, found = self.created(*self.MOMENTS)
        assert type_ == pa.timestamp("us", tz="UTC")
        assert found == [
            datetime(2026, 1, 1, tzinfo=UTC),
            datetime(2025, 12, 31, 23, 0, 0, 123456, tzinfo=UTC),
            datetime(2024, 2, 29, 23, 59, 59, 500000, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ]

    def test_raw(self) -> None:
        type_, found = self.created(*self.MOMENTS, parquet_timestamps="raw")
        assert (type_, found) == (pa.string(), [json.loads(moment) for moment in self.MOMENTS])

    @pytest.mark.parametrize("odd", [b'"2026-01-01T00:00:00.1234567Z"', b'"2026-01-01T00:00:00"', b'"soon"', b'""'])
    def test_one_that_is_none_leaves_all_as_they_were_sent(self, odd: bytes) -> None:
        type_, found = self.created(*self.MOMENTS, odd)
        assert (type_, found) == (pa.string(), [json.loads(moment) for moment in (*self.MOMENTS, odd)])

    def test_the_choice_is_checked(self) -> None:
        with pytest.raises(IntergiroValueError, match="`parquet_timestamps` must be one of 'typed', 'raw'"):
            get_format("parquet", None, "milliseconds")


class TestDrift:
    def test_a_field_that_appears_on_the_thousandth_page_and_a_null_that_becomes_a_string(self, tmp_path: Path) -> None:
        fields = [
            {"note": None, **({"late": {"tags": ["x"]}} if number >= 4999 else {})} if number < 4999 else {"note": "n"}
            for number in range(5000)
        ]
        fields[-1]["late"] = {"tags": ["x"]}
        bank = ListInMemory([record(number, **more) for number, more in enumerate(fields)])
        fs = LocalFileSystem(skip_instance_cache=True)
        manifest = pull(fs, str(tmp_path), bank, part_bytes=100_000)
        assert len(manifest.parts) > 2
        table = read(fs, str(tmp_path))
        assert table.schema.field("note").type == pa.string()
        assert table.to_pylist() == expected_rows([json.loads(r) for r in bank.records], table.schema)
        assert table.to_pylist()[-1]["late"] == {"tags": ["x"]}
        # As tools read it: all parts as one dataset, with the schema of the first.
        together = ds.dataset(sorted(map(str, tmp_path.glob("part-*"))), format="parquet").to_table()
        assert together.equals(table)

    JSON: st.SearchStrategy[Any] = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-3, 3)
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=3)
        | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b_at"]) | st.text(max_size=2), inner, max_size=3)
        ),
        max_leaves=6,
    )
    RECORDS = st.lists(
        st.dictionaries(st.sampled_from(["a", "b_at", "c", "d"]) | st.text(max_size=2), JSON, max_size=4), max_size=12
    )

    @settings(deadline=None)
    @given(RECORDS, st.integers(1, 4), st.integers(1, 200), st.booleans())
    def test_whatever_goes_in_comes_out(
        self, records: list[dict[str, Any]], limit: int, part_bytes: int, ascii_only: bool
    ) -> None:
        fs = ObjectStore()
        records = [{**r, "id": f"r{number}"} for number, r in enumerate(records)]
        bank = ListInMemory([json.dumps(r, ensure_ascii=ascii_only).encode() for r in records])
        pull(fs, "/lake", bank, query={"limit": limit}, part_bytes=part_bytes)
        if not records:
            assert names(fs, "/lake") == ["_manifest.json"]
            return
        table = read(fs, "/lake")
        found = table.to_pylist()
        assert found == expected_rows(records, table.schema, ascii_only)
        assert set().union(*records) == set(table.schema.names)


class TestFiles:
    def test_parts_and_row_groups_are_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "BLOCK", 10_000)
        monkeypatch.setattr(parquet, "ROW_GROUP", 50_000)
        bank = ListInMemory([record(number) for number in range(6000)])
        fs = LocalFileSystem(skip_instance_cache=True)
        manifest = pull(fs, str(tmp_path), bank, part_bytes=150_000)
        assert [part.path for part in manifest.parts] == [
            f"part-{number:05d}-{manifest.pull_id}.parquet" for number in range(3)
        ]
        groups = [
            file.metadata.row_group(number).num_rows
            for file in read_parts(fs, str(tmp_path))
            for number in range(file.num_row_groups)
        ]
        assert sum(groups) == 6000
        rows = 50_000 / (len(record(1)) + 1)
        assert all(rows <= group <= rows * 1.25 for group in groups[:-1])

    def test_a_record_larger_than_a_block(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "BLOCK", 1000)
        fs, root = store
        sizes = (0, 3000, 2, 999, 1000, 5000, 0)
        bank = ListInMemory([record(number, text="x" * size) for number, size in enumerate(sizes)])
        pull(fs, root, bank, part_bytes=1 << 20)
        assert [len(row["text"]) for row in read(fs, root).to_pylist()] == list(sizes)

    @pytest.mark.parametrize(("compression", "codec"), [(None, "UNCOMPRESSED"), ("gzip", "GZIP"), ("zstd", "ZSTD")])
    def test_compression(
        self, store: Store, compression: str | None, codec: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "zstandard", None)  # pyarrow has its own
        fs, root = store
        [part] = pull(fs, root, NEW, compression=compression, part_bytes=1 << 20).parts
        assert part.path.endswith(".parquet")
        [file] = read_parts(fs, root)
        assert {file.metadata.row_group(0).column(n).compression for n in range(file.metadata.num_columns)} == {codec}

    def test_a_rerun_replaces_another_format(self, store: Store) -> None:
        fs, root = store
        pull_lines(fs, root, NEW)
        pull(fs, root, NEW)
        assert read(fs, root).num_rows == 25
        pull_lines(fs, root, NEW, compression="gzip")
        assert all(name == "_manifest.json" or name.endswith(".jsonl.gz") for name in names(fs, root))

    def test_the_files_do_not_depend_on_the_windows(self, tmp_path: Path) -> None:
        bank = TimedList(even(600), pause=0.001)
        # Fields that occur in some windows only, in an order that depends on the first window.
        bank.records = [
            r[:-1] + b',"f%d":1}' % (number // 100) if number % 7 == 0 else r for number, r in enumerate(bank.records)
        ]
        fs = LocalFileSystem(skip_instance_cache=True)

        def sums(windows: int, part_bytes: int) -> list[str]:
            query = {"limit": 5, **ORDER}
            request = PullRequest(
                endpoint="transactions",
                query=query,
                interval=interval(0, 86_400_000),
                file_format="parquet",
                max_parallel_windows=windows,
                part_bytes=part_bytes,
            )
            return [p.sha256 for p in Pull(request, pages_of(bank), Target(Directory(fs, str(tmp_path)))).run().parts]

        assert len(sums(1, 5000)) == 4
        assert sums(1, 5000) == sums(4, 5000)
        assert sums(1, 1 << 20) == sums(4, 1 << 20)
        assert bank.most_at_once == 4

    def test_no_records_no_parts(self, store: Store) -> None:
        fs, root = store
        assert pull(fs, root, ListInMemory([])).parts == []
        assert names(fs, root) == ["_manifest.json"]


class TestWithoutPyarrow:
    def test_the_error_comes_before_the_first_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [m for m in sys.modules if m.partition(".")[0] == "pyarrow"]:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, "intergiro_provider.pull.parquet")
        with pytest.raises(
            IntergiroValueError, match=r"`file_format`.*pip install 'airflow-provider-intergiro\[parquet\]'"
        ):
            PullRequest(endpoint="transactions", file_format="parquet")


def test_a_page_without_records_in_between(store: Store) -> None:
    fs, root = store
    answers = iter([page([record(1)], has_more=True), page([], has_more=False)])
    pull(fs, root, lambda query: next(answers))
    assert read(fs, root).num_rows == 1


def test_days_with_and_without_a_value_are_read_as_one(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    for day, values in (("a", [None, None]), ("b", [10.45, None]), ("c", [1, 2])):
        bank = ListInMemory([record(n, exchange_rate=value) for n, value in enumerate(values)])
        pull_lines(LocalFileSystem(), str(tmp_path / f"day={day}"), bank, file_format="parquet")
    found = duckdb.sql(f"select sum(exchange_rate), count(*) from '{tmp_path}/*/part-*.parquet'").fetchall()[0]
    assert found == (13.45, 6)
    table = ds.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert table.schema.field("exchange_rate").type == pa.float64()
    assert table.column("exchange_rate").null_count == 3


def test_row_groups_are_bounded_by_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record has a few of many names, so there is little JSON and a wide table."""
    monkeypatch.setattr(parquet, "CELLS", 4000)
    bank = ListInMemory([record(n, wide={f"f{n * 3 % 97 + k}": n for k in range(3)}) for n in range(300)])
    pull_lines(LocalFileSystem(), str(tmp_path), bank, file_format="parquet", part_bytes=1 << 20)
    [part] = tmp_path.glob("part-*")
    file = pa.parquet.ParquetFile(part)
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sum(groups) == 300
    assert max(groups) * file.metadata.num_columns <= 5000
