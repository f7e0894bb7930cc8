# SPDX-License-Identifier: Apache-2.0
"""Read a Parquet result as users do, and compute the expected value of each record."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from tests.unit.pull.stores import names


def read_parts(fs: AbstractFileSystem, root: str) -> list[Any]:
    """Return the parts of the result in a directory. Compare them with the manifest, and allow no other file."""
    manifest = json.loads(fs.cat_file(f"{root}/_manifest.json"))
    assert names(fs, root) == sorted(["_manifest.json", *(part["path"] for part in manifest["parts"])])
    files = []
    for part in manifest["parts"]:
        stored = fs.cat_file(f"{root}/{part['path']}")
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (part["bytes"], part["sha256"])
        file = pq.ParquetFile(io.BytesIO(stored))
        assert file.metadata.num_rows == part["rows"] > 0
        files.append(file)
    assert manifest["rows"] == sum(part["rows"] for part in manifest["parts"])
    assert manifest["bytes"] == sum(part["bytes"] for part in manifest["parts"])
    return files


def read(fs: AbstractFileSystem, root: str) -> Any:
    """Return the result as one table. Check that all parts have exactly the same schema, also that of Parquet."""
    files = read_parts(fs, root)
    for file in files:
        assert file.schema_arrow.equals(files[0].schema_arrow, check_metadata=True)
        assert str(file.schema).partition("\n")[2] == str(files[0].schema).partition("\n")[2]
    return pa.concat_tables([file.read() for file in files])


def expected(value: Any, type_: Any, is_json: bool = False, ascii_only: bool = True) -> Any:
    """Return the expected value in a column of this type, computed with the standard library."""
    if value is None:
        return None
    if is_json:
        return json.dumps(value, ensure_ascii=ascii_only)
    if pa.types.is_struct(type_):
        assert isinstance(value, dict)
        assert value.keys() <= {inner.name for inner in type_}, "a field is missing in the schema"
        return {inner.name: expected(value.get(inner.name), inner.type, is_text(inner), ascii_only) for inner in type_}
    if pa.types.is_list(type_):
        assert isinstance(value, list)
        return [expected(each, type_.value_type, is_text(type_.value_field), ascii_only) for each in value]
    if pa.types.is_timestamp(type_):
        return datetime.fromisoformat(value).astimezone(UTC)
    exact = {pa.int64(): int, pa.float64(): (int, float), pa.bool_(): bool, pa.string(): str}[type_]
    assert isinstance(value, exact), (value, type_)
    assert pa.types.is_boolean(type_) or not isinstance(value, bool)
    return value


def is_text(field: Any) -> bool:
    """Return whether the metadata of a field marks it as JSON text."""
    return bool(field.metadata) and field.metadata.get(b"content") == b"json"


def expected_rows(records: list[Any], schema: Any, ascii_only: bool = True) -> list[dict[str, Any]]:
    """Return the expected rows for these records."""
    return [
        {column.name: expected(record.get(column.name), column.type, is_text(column), ascii_only) for column in schema}
        for record in records
    ]
