# SPDX-License-Identifier: Apache-2.0
"""A result is read exactly as the manifest describes it; characters that a warehouse cannot store become U+FFFD."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.exceptions import IntergiroValueError, StorageError
from intergiro_provider.load.source import Source
from intergiro_provider.pull.directory import Directory
from tests.integration.load.world import Bank, pull, record

LINE = b'{"id":"1","reference":"%b"}\n'


def source(path: Path) -> Source:
    return Source(Directory(LocalFileSystem(), str(path)))


def change(path: Path, **fields: Any) -> None:
    manifest = json.loads((path / "_manifest.json").read_text())
    (path / "_manifest.json").write_text(json.dumps(manifest | fields))


@pytest.mark.parametrize(
    ("text", "cleaned", "replaced"),
    [
        ("plain", "plain", 0), (r"\u0000", r"\ufffd", 1), (r"\ud800", r"\ufffd", 1), (r"\uDFFF", r"\ufffd", 1),
        (r"\ud83d\ude00", r"\ud83d\ude00", 0), (r"\ude00\ud83d", r"\ufffd\ufffd", 2), (r"\\u0000", r"\\u0000", 0),
        (r"\\\u0000", r"\\\ufffd", 1), (r"\\ud800\ud800", r"\\ud800\ufffd", 1), (r"\u00e5\n", r"\u00e5\n", 0),
        (r"\ud800\ud83d\ude00", r"\ufffd\ud83d\ude00", 1), (r"\ud83d\ude00\ude00", r"\ud83d\ude00\ufffd", 1),
        (r"\\ud83d\ude00", r"\\ud83d\ufffd", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_stored(tmp_path: Path, text: str, cleaned: str, replaced: int) -> None:
    pull(tmp_path, Bank(LINE.strip() % text.encode()))
    found = source(tmp_path)
    assert b"".join(found.blocks()) == LINE % cleaned.encode()
    assert found.replaced == replaced


@pytest.mark.parametrize(("value", "is_json", "cleaned"), [
    ("a\0b", False, "a\ufffdb"), (r"\u0000", False, r"\u0000"), (r'"\u0000"', True, r'"\ufffd"'), (5, False, 5),
])  # fmt: skip
def test_nul_in_parquet(tmp_path: Path, value: Any, is_json: bool, cleaned: Any) -> None:
    pull(tmp_path, Bank(record(0)))
    assert source(tmp_path).without_nul(value, is_json) == cleaned


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data[:40] + b"0" + data[41:], lambda data: b""])
def test_a_spoiled_part(tmp_path: Path, file_format: str, compression: str | None, spoil: Any) -> None:
    if (file_format, compression) == ("parquet", "gzip"):
        pytest.skip("Parquet compresses inside")
    pull(tmp_path, Bank(record(0), record(1)), file_format=file_format, compression=compression)
    [part] = tmp_path.glob("part-*")
    part.write_bytes(spoil(part.read_bytes()))
    found = source(tmp_path)
    with pytest.raises(StorageError, match="differs from its manifest"), ExitStack() as stack:
        _ = [*(found.files(stack) if found.is_parquet else found.blocks())]


def test_rows_are_compared(tmp_path: Path) -> None:
    pull(tmp_path, Bank(record(0), record(1)))
    found = source(tmp_path)
    found.check_rows(2)
    with pytest.raises(StorageError, match=r"\(rows\)"):
        found.check_rows(1)


@pytest.mark.parametrize(("query", "filters"), [
    (None, None), ({}, {}), ({"sort_by": "created_at", "sort_type": "ASC"}, {}), ({"status": "x"}, {"status": "x"}),
])  # fmt: skip
def test_filters(tmp_path: Path, query: Any, filters: Any) -> None:
    pull(tmp_path, Bank(record(0)))
    change(tmp_path, query=query)
    assert source(tmp_path).filters == filters
    change(tmp_path, endpoint="transactions?status=x")
    assert source(tmp_path).filters is None


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(IntergiroValueError, match=r"there is no _manifest\.json"):
        source(tmp_path)
    pull(tmp_path, Bank(record(0)))
    change(tmp_path, schema=None)
    with pytest.raises(IntergiroValueError, match="no records with an `id`"):
        source(tmp_path)
