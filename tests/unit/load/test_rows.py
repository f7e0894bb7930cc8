# SPDX-License-Identifier: Apache-2.0
"""Records become CSV that PostgreSQL reads as the same values; a separate CSV reader verifies it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.load.rows import Lines, converter, to_csv
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type

TEXTS = [
    "",
    "null",
    'a "b"',
    "\\",
    "\\n",
    "a\nb",
    "\t\r\b\f",
    "\x01\x1f",
    "\\\n\\\\",
    "Åsa €",
    "]\n[",
    "a,b",
    "\\u0001",
]
INSIDE = StructOf({"b": Kind.JSON, "c": ListOf(Kind.JSON), "d": Kind.STRING})


def read(block: bytes) -> list[list[str | None]]:
    """Rows of CSV with QUOTE '"', ESCAPE '\\' and NULL 'null', as PostgreSQL's documentation describes it."""
    rows: list[list[str | None]] = []
    for value, end in re.findall(r'("(?:\\.|[^"\\])*"|[^",\n]*)([,\n])', block.decode(), re.DOTALL):
        if not rows or rows[-1][-1:] == ["end"]:
            rows[-1:] = [*(row[:-1] for row in rows[-1:]), []]
        quoted = value.startswith('"')
        rows[-1].append(re.sub(r'\\(["\\])', r"\1", value[1:-1]) if quoted else None if value == "null" else value)
        if end == "\n":
            rows[-1].append("end")
    return [row[:-1] if row[-1] == "end" else row for row in rows]


def test_texts() -> None:
    rows = [[text, number, None] for number, text in enumerate(TEXTS)]
    assert read(to_csv(rows)) == [[text, str(number), None] for text, number, _ in rows]
    assert to_csv([]) == b""


@pytest.mark.parametrize("name", ["a", 'quo"te'])
@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (Kind.STRING, 'x "\n\\', 'x "\n\\'), (Kind.STRING, None, None), (Kind.INT64, -(2**63), str(-(2**63))),
        (Kind.INT128, 2**63, str(2**63)), (Kind.BOOLEAN, True, "true"), (Kind.DOUBLE, 0.1, "0.1"),
        (Kind.JSON, None, None), (Kind.JSON, "x", '"x"'), (Kind.JSON, {"b": '"'}, '{"b": "\\""}'),
        (Kind.JSON, [1], "[1]"),
    ],
)  # fmt: skip
def test_lines(name: str, type_: Type, value: Any, expected: str | None) -> None:
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in ({"id": "1", name: value}, {"id": "2"}))
    columns = {"id": Kind.STRING, name: type_}
    assert read(Lines(columns, columns).csv(lines)) == [["1", expected], ["2", None]]
    assert read(Lines({name: type_}, columns).csv(lines)) == [[expected], [None]]


def test_a_record_that_does_not_fit() -> None:
    with pytest.raises(IntergiroError, match="does not fit the schema") as caught:
        Lines({"id": Kind.STRING}, {}).csv(b'{"id": 5, "iban": "SE12"}\n')
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("found", "value", "expected"),
    [
        (StructOf({"b": Kind.STRING}), {"b": "x"}, {"b": "x"}), (StructOf({"b": Kind.STRING}), None, None),
        (INSIDE, {"b": '{"x":1}', "c": ["1", None], "d": "1"}, {"b": {"x": 1}, "c": [1, None], "d": "1"}),
        (ListOf(INSIDE), [None, {"b": None, "c": None, "d": None}], [None, {"b": None, "c": None, "d": None}]),
        (ListOf(Kind.INT128), [str(2**70)], [2**70]),
    ],
)  # fmt: skip
def test_values_of_parquet(found: Type, value: Any, expected: Any) -> None:
    convert = converter(found, Kind.JSON)
    assert convert is not None
    text = convert(value)
    assert (None if text is None else msgspec.json.decode(text)) == expected
    assert converter(Kind.JSON, Kind.JSON) is converter(Kind.STRING, Kind.STRING) is None
