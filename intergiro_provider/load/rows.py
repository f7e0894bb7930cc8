# SPDX-License-Identifier: Apache-2.0
"""Records as rows of CSV, for COPY with QUOTE '"', ESCAPE '\\' and NULL 'null'.

C code does nearly all of the work: msgspec decodes a block of lines into objects, an attribute getter turns these into
tuples, and msgspec encodes the tuples as JSON arrays, one per line. Without its brackets, and with the escapes resolved
that only JSON has, such an array is a row of this CSV.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.load.source import Source
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

_PYTHON: dict[Type, Any] = {
    Kind.BOOLEAN: bool | None,
    Kind.INT53: int | None,
    Kind.INT64: int | None,
    Kind.DOUBLE: float | None,
    Kind.TIMESTAMP: str | None,
    Kind.STRING: str | None,
}
"""Values of all other types stay JSON text."""

_encode_lines = msgspec.json.Encoder().encode_lines
_NULL = msgspec.Raw(b"null")
_CONTROL = {ord("n"): b"\n", ord("t"): b"\t", ord("r"): b"\r", ord("b"): b"\b", ord("f"): b"\f"}
_BACKSLASH = ord("\\")
_odd_escapes = re.compile(rb"\\[^\"\\]").finditer


def to_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return rows of plain values as CSV."""
    lines = _encode_lines(rows)
    if not lines:
        return lines
    block = lines[1:-2].replace(b"]\n[", b"\n") + b"\n"
    pieces, start = [], 0
    for found in _odd_escapes(block):
        at = run = found.start()
        while block[run - 1] == _BACKSLASH:
            run -= 1
        if (at - run) % 2:  # the backslash is itself escaped
            continue
        kind = block[at + 1]
        is_code = kind == ord("u")
        pieces += [block[start:at], bytes.fromhex(block[at + 4 : at + 6].decode()) if is_code else _CONTROL[kind]]
        start = at + (6 if is_code else 2)
    return b"".join([*pieces, block[start:]]) if pieces else block


class Lines:
    """Converts JSON lines to CSV.

    :param columns: types of the target's columns. :param found: types of the records' fields.
    """

    def __init__(self, columns: Mapping[str, Type], found: Mapping[str, Type]) -> None:
        fields = [f"f{number}" for number in range(len(columns))]
        types = {name: _PYTHON.get(type_, msgspec.Raw) for name, type_ in columns.items()}
        self._values: Callable[[Any], tuple[Any, ...]]
        try:
            record = msgspec.defstruct(
                "Record",
                [(field, type_, None) for field, type_ in zip(fields, types.values(), strict=True)],
                rename=dict(zip(fields, columns, strict=True)),
                gc=False,
            )
            self._decode = msgspec.json.Decoder(list[record]).decode  # type: ignore[valid-type]
            get = attrgetter(*fields)
            self._values = get if len(fields) > 1 else lambda record: (get(record),)
        except ValueError:  # a name that msgspec does not accept, such as one with a quotation mark
            self._decode = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
            decoders = [
                (name, _text if type_ is msgspec.Raw else msgspec.json.Decoder(type_).decode)
                for name, type_ in types.items()
            ]
            self._values = lambda found: (*(decode(found.get(name, _NULL)) for name, decode in decoders),)
            fields = []
        self._raw = [field for field, type_ in zip(fields, types.values(), strict=False) if type_ is msgspec.Raw]

    def csv(self, lines: bytes) -> bytes:
        """Return the lines as CSV.

        :raises IntergiroError: a line does not fit the manifest's schema.
        """
        try:
            records = self._decode(b"[" + lines.rstrip(b"\n").replace(b"\n", b",") + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):  # whose message may quote a name
            records = None
        if records is None:
            raise IntergiroError(
                "a record does not fit the schema in the pull's manifest; pull the interval again, and report this as "
                "a bug if it fails again"
            )
        for field in self._raw:
            for record, raw in zip(records, map(attrgetter(field), records), strict=True):
                if raw is not None:
                    text = str(raw, "utf-8")
                    setattr(record, field, text if text != "null" else None)
        return to_csv(map(self._values, records))


def _text(raw: msgspec.Raw) -> str | None:
    text = str(raw, "utf-8")
    return None if text == "null" else text


def converter(found: Type, wanted: Type) -> Callable[[Any], Any] | None:
    """Return a function that converts pyarrow's value for :func:`to_csv`; None if no conversion is needed.

    :param wanted: the type of the target's column.
    """
    if wanted in _PYTHON or found is Kind.JSON or found is Kind.INT128:
        return None
    inner = _inner(found)

    def convert(value: Any) -> str | None:
        return None if value is None else msgspec.json.encode(inner(value) if inner else value).decode()

    return convert


def _inner(found: Type) -> Callable[[Any], Any] | None:
    """Return a function that replaces JSON text in strings with the value; None if there is no JSON text."""
    match found:
        case Kind.JSON | Kind.INT128:
            return lambda value: None if value is None else msgspec.Raw(value.encode())
        case ListOf(element):
            each = _inner(element)
            return each and (lambda value: None if value is None else [each(one) for one in value])
        case StructOf(fields) if not fields:  # the file has the text {}
            return _inner(Kind.JSON)
        case StructOf(fields):
            changed = {name: change for name, type_ in fields.items() if (change := _inner(type_)) is not None}
            if changed:
                return lambda value: (
                    None if value is None else value | {name: change(value[name]) for name, change in changed.items()}
                )
    return None


def parquet_rows(path: str, source: Source, columns: Mapping[str, Type]) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of a file in blocks: their number, and the CSV."""
    import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

    found = source.fields
    changes = [converter(found[name], type_) for name, type_ in columns.items()]
    is_json = [type_ not in _PYTHON for type_ in columns.values()]
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096, columns=[*columns]):
            values = [batch.column(name).to_pylist() for name in columns]
            for number, change in enumerate(changes):
                if change is not None:
                    values[number] = [*map(change, values[number])]
            block = to_csv(zip(*values, strict=True))
            if b"u0000" in block:
                values = [
                    [source.without_nul(value, json) for value in column]
                    for column, json in zip(values, is_json, strict=True)
                ]
                block = to_csv(zip(*values, strict=True))
            yield batch.num_rows, block
