# SPDX-License-Identifier: Apache-2.0
"""Write records to files: one line per record, byte for byte, counted and hashed as stored."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.arguments import check_format
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.formats import get_format
from intergiro_provider.pull.jsonl import Stored, to_lines
from tests.unit.pull.lists import record


def raw(*records: bytes) -> list[msgspec.Raw]:
    return [msgspec.Raw(r) for r in records]


def write(folder: Path, pages: list[list[bytes]], compression: str | None) -> Stored:
    part = get_format("jsonl", compression).open(Directory(LocalFileSystem(), str(folder)).create("part"))
    for records in pages:
        part.write(raw(*records))
    return part.finish()


class TestLines:
    def test_the_banks_bytes(self) -> None:
        records = [record(1, name="Åsa", text='a\n"b"\\'), record(2)]
        assert to_lines(raw(*records)) == records[0] + b"\n" + records[1] + b"\n"

    def test_a_record_on_several_lines_becomes_one(self) -> None:
        pretty = b'{\r\n  "id" : "a b",\n\t"text": "two  spaces, \\" and \\\\",\n  "list": [ 1,\n 2 ]\n}'
        assert to_lines(raw(pretty)) == b'{"id":"a b","text":"two  spaces, \\" and \\\\","list":[1,2]}\n'

    def test_its_neighbours_on_the_page_as_well(self) -> None:
        assert to_lines(raw(b'{"id": "a"}', b'{"id":\n"b"}')).splitlines() == [b'{"id":"a"}', b'{"id":"b"}']

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        )
    )
    def test_whatever_is_pretty_printed_says_the_same_on_one_line(self, value: Any) -> None:
        pretty = json.dumps([value], indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
        [line] = to_lines(raw(pretty)).split(b"\n")[:-1]
        assert json.loads(line.decode("utf-8", "surrogatepass")) == [value]
        assert line == json.dumps([value], separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def test_a_line_break_that_cannot_be_removed_is_an_error(self) -> None:
        with pytest.raises(IntergiroResponseError, match="line break inside a string"):
            to_lines(raw(b'{"id":"a\nb"}'))

    def test_nothing(self) -> None:
        assert to_lines([]) == b""


class TestParts:
    PAGES = ([record(n) for n in range(100)], [], [record(n) for n in range(100, 150)])

    @pytest.mark.parametrize(
        ("compression", "suffix"), [(None, ".jsonl"), ("gzip", ".jsonl.gz"), ("zstd", ".jsonl.zst")]
    )
    def test_names(self, compression: str | None, suffix: str) -> None:
        if compression == "zstd":
            pytest.importorskip("zstandard")
        assert get_format("jsonl", compression).suffix == suffix

    def test_plain(self, tmp_path: Path) -> None:
        stored = write(tmp_path, list(self.PAGES), None)
        content = (tmp_path / "part").read_bytes()
        assert content == b"".join(r + b"\n" for records in self.PAGES for r in records)
        assert stored == Stored(150, len(content), hashlib.sha256(content).hexdigest())

    def test_gzip(self, tmp_path: Path) -> None:
        stored = write(tmp_path, list(self.PAGES), "gzip")
        content = (tmp_path / "part").read_bytes()
        assert gzip.decompress(content) == b"".join(r + b"\n" for records in self.PAGES for r in records)
        assert stored == Stored(150, len(content), hashlib.sha256(content).hexdigest())
        assert content[4:8] == bytes(4), "a time in the header would make equal rows unequal files"

    def test_zstd(self, tmp_path: Path) -> None:
        zstandard = pytest.importorskip("zstandard")
        stored = write(tmp_path, list(self.PAGES), "zstd")
        content = (tmp_path / "part").read_bytes()
        with zstandard.ZstdDecompressor().stream_reader(content) as reader:
            assert reader.read() == b"".join(r + b"\n" for records in self.PAGES for r in records)
        assert stored == Stored(150, len(content), hashlib.sha256(content).hexdigest())

    @pytest.mark.parametrize("compression", [None, "gzip"])
    def test_more_than_a_block(self, tmp_path: Path, compression: str | None) -> None:
        page = [record(n, filler="x" * 5000) for n in range(100)]
        stored = write(tmp_path, [page] * 5, compression)
        content = (tmp_path / "part").read_bytes()
        lines = (gzip.decompress(content) if compression else content).splitlines()
        assert lines == page * 5
        assert (stored.rows, stored.bytes) == (500, len(content))

    def test_large_blocks_reach_the_file_system(self, tmp_path: Path) -> None:
        sizes: list[int] = []
        sink = Directory(LocalFileSystem(), str(tmp_path)).create("part")
        write_through = sink.write
        sink.write = lambda data: (sizes.append(len(data)), write_through(data))[1]  # type: ignore[method-assign]
        part = get_format("jsonl", None).open(sink)
        for _ in range(100):
            part.write(raw(*[record(n, filler="x" * 400) for n in range(100)]))
        part.finish()
        assert min(sizes[:-2]) >= 1 << 18


class TestArguments:
    @pytest.mark.parametrize(("file_format", "compression"), [("csv", None), ("", None), (None, None), ("JSONL", None)])
    def test_unknown_format(self, file_format: Any, compression: Any) -> None:
        with pytest.raises(IntergiroValueError, match="`file_format` must be one of 'jsonl', 'parquet'"):
            check_format(file_format, compression)

    @pytest.mark.parametrize("compression", ["", "gz", "none", 9])
    def test_unknown_compression(self, compression: Any) -> None:
        with pytest.raises(IntergiroValueError, match="`compression` must be one of None, 'gzip', 'zstd'"):
            check_format("jsonl", compression)

    @pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_what_the_operator_accepts(self, file_format: str, compression: str | None) -> None:
        check_format(file_format, compression)

    def test_zstd_without_its_package_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
        with pytest.raises(IntergiroValueError, match=r"`compression`: 'zstd' needs .*\[zstd\]"):
            get_format("jsonl", "zstd")
