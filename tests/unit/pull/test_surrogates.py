# SPDX-License-Identifier: Apache-2.0
"""A lone surrogate in a string: msgspec does not read such JSON, but a pull keeps its bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroResponseError
from intergiro_provider.pull.pages import decoded, iter_pages, read_page
from tests.unit.pull.lists import pages_of

HALF = rb'{"id": "a1","reference":"cut \ud83d","big":9007199254740993, "created_at":"2026-01-01T00:00:00.000Z"}'
WHOLE = rb'{"id":"a2","nested":{"data":[1, {"has_more":true}]},"created_at":"2026-01-02T00:00:00.000Z"}'


def one_page(body: bytes) -> Any:
    return next(iter(iter_pages(pages_of(lambda query: body))))


def test_msgspec_still_refuses_it() -> None:
    """If this test fails, the module under test is no longer necessary."""
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(HALF)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[%b, %b],"has_more":false}',
        b' { "has_more" : false , "other":{"data":[]}, "data" :\n[ %b ,%b ] } ',
        b"[%b,%b]",
    ],
)
def test_records_keep_every_byte(body: bytes) -> None:
    page = one_page(body % (HALF, WHOLE))
    assert [bytes(record) for record in page.records] == [HALF, WHOLE]
    assert (page.first_id, page.last_id, page.has_more) == ("a1", "a2", False)
    assert page.created_at == [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
    assert decoded(page.records[0])["reference"] == "cut \ud83d"


def test_an_id_that_no_url_can_hold_is_no_cursor() -> None:
    odd = HALF.replace(b'"a1"', rb'"a\ud83d"')
    page = one_page(b'{"data":[%b, %b],"has_more":false}' % (odd, WHOLE))
    assert (page.ids, bytes(page.records[0])) == ([None, "a2"], odd)
    assert page.created_at[0] == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("cut", range(1, 30))
def test_what_was_cut_off_is_still_an_error(cut: int) -> None:
    body = b'{"data":[%b],"has_more":false}' % HALF
    with pytest.raises(IntergiroResponseError, match="not JSON, or is incomplete"):
        one_page(body[:-cut])


@pytest.mark.parametrize(
    "body",
    [
        b"[%b]x",
        b'{"data":[%b, NaN],"has_more":false}',
        b'{"data":[%b],"has_more":false}}',
        b"[%b,]",
    ],
)
def test_no_json(body: bytes) -> None:
    with pytest.raises(IntergiroResponseError, match="not JSON"):
        one_page(body % HALF)


@pytest.mark.parametrize("body", [b'{"data":%b,"has_more":false}', b'{"data":[%b]}', b'{"data":[%b],"has_more":1}'])
def test_no_page(body: bytes) -> None:
    with pytest.raises(IntergiroResponseError, match="Check that `endpoint` is a list"):
        one_page(body % HALF)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(records=st.lists(values, max_size=5), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_every_byte_is_put_back(records: list[Any], indent: int | None, ascii: bool) -> None:
    written = [json.dumps(each, indent=indent, ensure_ascii=ascii).encode() for each in records]
    page = read_page(b"[%b]" % b" ,".join([HALF, rb'"\udCCC \ue000 \\ud83d \ud83d\ude00"', *written]))
    assert [bytes(r) for r in page.records][2:] == written
    assert bytes(page.records[1]) == rb'"\udCCC \ue000 \\ud83d \ud83d\ude00"'
