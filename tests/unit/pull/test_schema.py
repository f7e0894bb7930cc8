# SPDX-License-Identifier: Apache-2.0
"""Schema inference: the narrowest type that loses nothing, independent of the order of records."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intergiro_provider.pull.schema import (
    MAX_DEPTH,
    MAX_FIELDS,
    Kind,
    ListOf,
    StructOf,
    Type,
    TypeInference,
    finalize,
    from_plain,
    to_plain,
    unite,
    unite_all,
)


def shape(*records: bytes, timestamps: bool = True) -> Type:
    """Return the type of records that are added one by one."""
    seen = TypeInference(timestamps)
    for record in records:
        seen.add([msgspec.Raw(record)])
    return seen.type


def field(*values: str, name: str = "x", timestamps: bool = True) -> Type:
    """Return the type of a field with these JSON values: equal on separate pages, in any order, and on one page."""
    records = [f'{{"{name}":{value}}}'.encode() for value in values]
    type_ = shape(*records, timestamps=timestamps)
    assert shape(*reversed(records), timestamps=timestamps) == type_
    assert shape(b"[" + b",".join(records) + b"]", timestamps=timestamps) == ListOf(type_)
    assert isinstance(type_, StructOf)
    return type_.fields[name]


class TestKinds:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (["null"], Kind.NULL),
            (["true", "null"], Kind.BOOLEAN),
            (["1", "-5"], Kind.INT53),
            (["9007199254740993"], Kind.INT64),
            (["1", "9223372036854775807", "-9223372036854775808"], Kind.INT64),
            (["9223372036854775808"], Kind.INT128),
            (["1", "123456789012345678901234567890"], Kind.INT128),
            (["9007199254740993", str(2**127 - 1), str(-(2**127))], Kind.INT128),
            ([str(2**127)], Kind.JSON),
            ([str(2**64), "1.5"], Kind.JSON),
            (["1.5", "10.4500", "4.2e-2", "1E3", "0.1"], Kind.DOUBLE),
            (["1", "1.5", "9007199254740992"], Kind.DOUBLE),
            (["9007199254740993", "1.5"], Kind.JSON),
            (["1", "9007199254740993", "1.5"], Kind.JSON),
            (["0.1000000000000000055511151231257827"], Kind.JSON),
            (["1.7976931348623157e308", "5e-324"], Kind.DOUBLE),
            (["1.5", "1e400"], Kind.JSON),
            (["1e-400"], Kind.JSON),
            (["1e99999999999999999999"], Kind.JSON),
            (['"a"', "null"], Kind.STRING),
            (['"a"', "1"], Kind.JSON),
            (["true", "1"], Kind.JSON),
            (["true", "1.5"], Kind.JSON),
            (["{}", '"a"'], Kind.JSON),
            (["{}", "[]"], Kind.JSON),
        ],
    )
    def test_of_a_field(self, values: list[str], expected: Kind) -> None:
        assert field(*values) is expected

    def test_an_integer_of_thousands_of_digits(self) -> None:
        assert field("1", "1" * 5000) is field("1" * 5000, "1") is Kind.JSON

    def test_structures(self) -> None:
        assert field('{"a":1}', "null", '{"b":[]}', '{"b":["x"]}') == StructOf(
            {"a": Kind.INT53, "b": ListOf(Kind.STRING)}
        )

    def test_a_record_that_is_no_object(self) -> None:
        assert shape(b'"a"', b"null") is Kind.STRING
        assert shape(b'"a"', b"{}") is Kind.JSON

    def test_names_come_in_their_order(self) -> None:
        type_ = shape(b'{"b":1,"a":{"z":1}}', b'{"c":1,"a":{"y":1}}')
        assert isinstance(type_, StructOf)
        assert list(type_.fields) == ["b", "a", "c"]
        assert isinstance(type_.fields["a"], StructOf)
        assert list(type_.fields["a"].fields) == ["z", "y"]

    def test_too_deep_is_text(self) -> None:
        type_ = shape(b"[" * 900 + b"]" * 900)
        for _ in range(MAX_DEPTH):
            assert isinstance(type_, ListOf)
            type_ = type_.element
        assert type_ is Kind.JSON

    def test_a_map_is_text(self) -> None:
        wide = [json.dumps({"map": {f"k{page}-{n}": 1 for n in range(100)}}).encode() for page in range(11)]
        assert MAX_FIELDS == 1000
        assert shape(*wide) == StructOf({"map": Kind.JSON})
        assert shape(json.dumps({f"k{n}": 1 for n in range(1001)}).encode()) is Kind.JSON

    def test_names_that_msgspec_has_no_class_for(self) -> None:
        assert shape(b'{"a\\"\\u0000":1}', b'{"a\\"\\u0000":null,"":"x"}') == StructOf(
            {'a"\0': Kind.INT53, "": Kind.STRING}
        )


class TestMoments:
    @pytest.mark.parametrize(
        "value",
        [
            "2026-01-01T00:00:00.123Z",
            "2026-01-01T00:00:00.123456+02:00",
            "2024-02-29T23:59:59-00:30",
            "0001-01-01T00:00:00Z",
        ],
    )
    def test_with_an_offset(self, value: str) -> None:
        assert field(f'"{value}"', "null", name="created_at") is Kind.TIMESTAMP

    @pytest.mark.parametrize(
        "value",
        [
            "2026-01-01T00:00:00",  # midnight in which time zone?
            "2026-01-01",
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:00.1234567Z",
            "2026-01-01T00:00:00.123456789+00:00",
            "2026-01-01T23:59:60Z",
            "0001-01-01T00:00:00+01:00",  # before the year 1 in UTC
            "9999-12-31T23:59:59-05:00",
            "soon",
            "",
        ],
    )
    def test_others_make_the_field_a_string(self, value: str) -> None:
        assert field('"2026-01-01T00:00:00.123Z"', f'"{value}"', name="created_at") is Kind.STRING

    def test_only_where_the_name_says_so(self) -> None:
        moment = '"2026-01-01T00:00:00.123Z"'
        assert field(moment, name="reference") is Kind.STRING
        assert field(f'{{"expires_at":[{moment}]}}') == StructOf({"expires_at": ListOf(Kind.TIMESTAMP)})

    def test_raw(self) -> None:
        assert field('"2026-01-01T00:00:00.123Z"', name="created_at", timestamps=False) is Kind.STRING

    def test_a_fine_moment_elsewhere_changes_nothing(self) -> None:
        assert field('"2026-01-01T00:00:00.1234567Z"', name="reference") is Kind.STRING


TYPES: st.SearchStrategy[Type] = st.recursive(
    st.sampled_from(Kind),
    lambda inner: st.builds(ListOf, inner) | st.builds(StructOf, st.dictionaries(st.sampled_from("abc"), inner)),
    max_leaves=6,
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_at", "c"]), inner),
    max_leaves=8,
)


class TestUniting:
    @given(TYPES, TYPES, TYPES)
    def test_in_any_order(self, one: Type, other: Type, third: Type) -> None:
        assert unite(one, other) == unite(other, one)
        assert unite(unite(one, other), third) == unite(one, unite(other, third))
        assert unite(one, one) == one
        assert unite(one, unite(one, other)) == unite(one, other)

    @settings(deadline=None)
    @given(st.lists(JSON, max_size=6))
    def test_by_pages_as_one_by_one(self, values: list[Any]) -> None:
        records = [json.dumps(value).encode() for value in values]
        together = TypeInference(timestamps=True)
        together.add([msgspec.Raw(r) for r in records])
        one_by_one = shape(*records)
        assert one_by_one == together.type == unite_all(shape(record) for record in records)
        # Records that were added fit: the fast check agrees with the slow one.
        again = TypeInference(timestamps=True)
        for _ in range(2):
            for record in records:
                again.add([msgspec.Raw(record)])
        assert again.type == one_by_one

    def test_settled(self) -> None:
        assert finalize(StructOf({"a": Kind.NULL, "b": ListOf(Kind.NULL), "c": StructOf({}), "d": Kind.INT53})) == (
            StructOf({"a": Kind.STRING, "b": ListOf(Kind.STRING), "c": Kind.JSON, "d": Kind.INT64})
        )
        assert finalize(StructOf({})) is Kind.JSON

    def test_a_manifest_keeps_it(self) -> None:
        type_ = StructOf(
            {kind.name: kind for kind in Kind} | {"o": StructOf({"l": ListOf(Kind.INT128)}), "e": StructOf({})}
        )
        assert from_plain(json.loads(json.dumps(to_plain(type_)))) == type_
        assert from_plain({"a": "of a newer version", "b": 5}) == StructOf({"a": Kind.JSON, "b": Kind.JSON})

    @pytest.mark.parametrize(
        ("name", "found", "expected"),
        [
            ("exchange_rate", Kind.NULL, Kind.DOUBLE),
            ("exchange_rate", Kind.INT53, Kind.DOUBLE),
            ("exchange_rate", Kind.STRING, Kind.STRING),
            ("payment_amount", Kind.NULL, Kind.INT64),
            ("payment_amount", Kind.DOUBLE, Kind.DOUBLE),
            ("booked_at", Kind.NULL, Kind.TIMESTAMP),
        ],
    )
    def test_what_the_bank_documents_does_not_depend_on_the_day(self, name: str, found: Kind, expected: Kind) -> None:
        assert finalize(StructOf({name: found})) == StructOf({name: expected})
        assert finalize(StructOf({"x": Kind.NULL, "x_at": Kind.NULL}), timestamps=False) == (
            StructOf({"x": Kind.STRING, "x_at": Kind.STRING})
        )
