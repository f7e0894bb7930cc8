# SPDX-License-Identifier: Apache-2.0
"""Following a cursor: every record once, byte for byte, and never a loop."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.exceptions import IntergiroNotFound, IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.pages import Page, iter_pages
from tests.unit.pull.lists import ListInMemory, page, pages_of, record


def only_page(body: bytes) -> Page:
    [found] = iter_pages(pages_of(lambda query: body))
    return found


def pull_all(bank: Any, params: dict[str, Any] | None = None) -> list[bytes]:
    return [bytes(r) for found in itertools.islice(iter_pages(pages_of(bank), params), 1000) for r in found.records]


class TestFollowingTheCursor:
    @pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
    def test_every_record_once_and_in_order(self, count: int) -> None:
        bank = ListInMemory([record(n) for n in range(count)])
        assert pull_all(bank) == bank.records

    def test_the_first_query_is_the_users_and_the_next_ones_move_the_cursor(self) -> None:
        bank = ListInMemory([record(n) for n in range(5)])
        pull_all(bank, {"limit": 2, "statuses": ["pending", "completed"]})
        assert bank.queries == [
            {"limit": 2, "statuses": ["pending", "completed"]},
            {"limit": 2, "statuses": ["pending", "completed"], "starting_after": "r00001"},
            {"limit": 2, "statuses": ["pending", "completed"], "starting_after": "r00003"},
        ]

    def test_starting_in_the_middle(self) -> None:
        bank = ListInMemory([record(n) for n in range(5)])
        assert pull_all(bank, {"starting_after": "r00002"}) == bank.records[3:]

    def test_ids_that_are_numbers(self) -> None:
        bank = ListInMemory([record(n, id=n) for n in range(250)])
        assert pull_all(bank) == bank.records

    def test_a_page_knows_its_ends(self) -> None:
        first, second = iter_pages(pages_of(ListInMemory([record(n) for n in range(3)])), {"limit": 2})
        assert (first.first_id, first.last_id, first.has_more) == ("r00000", "r00001", True)
        assert (second.first_id, second.last_id, second.has_more) == ("r00002", "r00002", False)

    def test_only_one_page_is_asked_for_at_a_time(self) -> None:
        bank = ListInMemory([record(n) for n in range(250)])
        next(iter_pages(pages_of(bank)))
        assert len(bank.queries) == 1

    def test_the_callers_params_are_left_alone(self) -> None:
        params = {"limit": 2}
        pull_all(ListInMemory([record(n) for n in range(5)]), params)
        assert params == {"limit": 2}

    def test_a_cursor_may_be_hostile(self) -> None:
        bank = ListInMemory([record(n, id=f'id?&=/ \\" {n} å') for n in range(3)])
        assert pull_all(bank, {"limit": 1}) == bank.records


class TestFidelity:
    ODD = (
        b'{"z":1,"a":2,"id":"x1","big":9007199254740993,"bigger":123456789012345678901234567890,'
        b'"float":1.10,"e":1E+2,"esc":"\\u00e5\\/\\n\\ud83d\\ude00","raw":"\xc3\xa5","nested":{"b":[1, 2 ,3],"a":null}}'
    )

    def test_a_records_bytes_survive(self) -> None:
        [found] = only_page(page([self.ODD], has_more=False)).records
        assert bytes(found) == self.ODD

    @given(
        st.lists(
            st.dictionaries(
                st.text(max_size=5), st.none() | st.integers() | st.floats() | st.text(max_size=8), max_size=4
            ),
            max_size=6,
        ),
        st.booleans(),
    )
    def test_any_json_survives(self, records: list[dict[str, Any]], ascii_only: bool) -> None:
        written = [
            json.dumps({**r, "id": str(n)}, ensure_ascii=ascii_only, allow_nan=False).encode()
            for n, r in enumerate(records)
            if all(v == v and abs(v) != float("inf") for v in r.values() if isinstance(v, float))
            and not any(
                "\ud800" <= c <= "\udfff" for c in "".join([*r, *(v for v in r.values() if isinstance(v, str))])
            )
        ]
        body = b"[" + b" , ".join(written) + b"]"
        assert [bytes(r) for r in only_page(body).records] == written

    def test_times_are_read_beside_the_records(self) -> None:
        times = ['"2026-01-02T03:04:05.678Z"', '"2026-01-02T03:04:05+02:00"', "null", '"soon"', "17", '["x"]']
        records = [f'{{"id":"{n}","created_at":{time}}}'.encode() for n, time in enumerate(times)]
        found = only_page(page(records, has_more=False)).created_at
        assert found[2:] == [None, "soon", 17, ["x"]]
        found = only_page(page(records[:2], has_more=False)).created_at
        assert [t.astimezone(UTC) for t in found] == [
            datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
            datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC),
        ]


class TestPlainArrays:
    def test_an_array_is_one_page(self) -> None:
        found = only_page(b' [{"iban":"SE1"},\n{"iban":"SE2"}]\n')
        assert [bytes(r) for r in found.records] == [b'{"iban":"SE1"}', b'{"iban":"SE2"}']
        assert (found.has_more, found.first_id) == (False, None)

    def test_an_empty_array(self) -> None:
        assert only_page(b"[]").records == []

    def test_entries_need_not_be_objects(self) -> None:
        assert [bytes(r) for r in only_page(b'["EUR", 5, null]').records] == [b'"EUR"', b"5", b"null"]


class TestLimit:
    @pytest.mark.parametrize("limit", [1, 100, "7", " 100 "])
    def test_in_range(self, limit: Any) -> None:
        bank = ListInMemory([record(0)])
        pull_all(bank, {"limit": limit})
        assert bank.queries == [{"limit": int(limit)}]

    def test_the_largest_page_unless_told_otherwise(self) -> None:
        bank = ListInMemory([record(0)])
        pull_all(bank, {})
        assert bank.queries == [{"limit": 100}]

    def test_none_sends_none(self) -> None:
        bank = ListInMemory([record(0)])
        pull_all(bank, {"limit": None})
        assert bank.queries == [{}]

    @pytest.mark.parametrize("limit", [0, 101, -1, 10**30, 1.0, True, "", "ten", "1e1", "٧", "0", "0101", [5]])
    def test_out_of_range_is_refused_before_any_request(self, limit: Any) -> None:
        bank = ListInMemory([record(0)])
        with pytest.raises(IntergiroValueError, match="`limit`"):
            iter_pages(pages_of(bank), {"limit": limit})
        assert bank.queries == []

    def test_walking_backwards_is_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`ending_before`"):
            iter_pages(pages_of(ListInMemory([])), {"ending_before": "r1"})


class TestLists_that_misbehave:
    def endless(self, answer: Any) -> Any:
        """Return a list that always returns has_more: true. `answer(n)` returns the ids of page n."""
        counter = itertools.count()

        def fetch(query: dict[str, Any]) -> bytes:
            number = next(counter)
            assert number < 10_000, "this would never have ended"
            return page([json.dumps({"id": i}).encode() for i in answer(number)], has_more=True)

        return fetch

    def test_has_more_without_data(self) -> None:
        with pytest.raises(IntergiroResponseError, match=r"page 1 of the list says `has_more` but holds no data"):
            pull_all(lambda query: page([], has_more=True))

    def test_the_same_page_again_and_again(self) -> None:
        with pytest.raises(IntergiroResponseError, match=r"page 2 \(starting after 'b'\)"):
            pull_all(self.endless(lambda n: ["a", "b"]))

    def test_a_cursor_that_stands_still_over_changing_records(self) -> None:
        with pytest.raises(IntergiroResponseError, match="'end'"):
            pull_all(self.endless(lambda n: [f"new{n}", "end"]))

    @pytest.mark.parametrize("before", [0, 1, 7, 100])
    @pytest.mark.parametrize("length", [2, 3, 10, 500])
    def test_a_cursor_that_goes_in_a_circle(self, before: int, length: int) -> None:
        ids = self.endless(lambda n: [f"before{n}" if n < before else f"circle{(n - before) % length}"])
        pages = 0
        with pytest.raises(IntergiroResponseError, match="the cursor does not advance"):
            for _ in iter_pages(pages_of(ids)):
                pages += 1
        assert pages <= 3 * (before + length) + 3

    def test_a_long_list_is_no_circle(self) -> None:
        assert len(pull_all(ListInMemory([record(n) for n in range(999)]), {"limit": 1})) == 999

    def test_a_record_repeated_at_the_seam_of_two_pages(self) -> None:
        bank = ListInMemory(
            [record(n) for n in range(4)], lambda n: page([record(1), record(2)], has_more=False) if n == 2 else None
        )
        with pytest.raises(IntergiroResponseError, match="repeats the record 'r00001'"):
            pull_all(bank, {"limit": 2})

    def test_a_record_of_the_page_before_further_down(self) -> None:
        bank = ListInMemory(
            [record(n) for n in range(4)], lambda n: page([record(2), record(0)], has_more=False) if n == 2 else None
        )
        with pytest.raises(IntergiroResponseError, match="repeats the record 'r00000'"):
            pull_all(bank, {"limit": 2})

    def test_the_record_that_a_pull_was_to_start_after(self) -> None:
        with pytest.raises(IntergiroResponseError, match="repeats the record 'r00001'"):
            pull_all(lambda query: page([record(1)], has_more=False), {"starting_after": "r00001"})

    def test_a_record_twice_on_a_page(self) -> None:
        with pytest.raises(IntergiroResponseError, match="holds the record 'r00001' twice"):
            pull_all(lambda query: page([record(1), record(2), record(1)], has_more=False))

    @pytest.mark.parametrize(
        "last", [b"{}", b'{"id":null}', b'{"id":""}', b'{"id":1.5}', b'{"id":true}', b'{"id":{}}', b"7"]
    )
    def test_no_id_to_go_on_from(self, last: bytes) -> None:
        with pytest.raises(IntergiroResponseError, match="no `id`, which is the cursor"):
            pull_all(lambda query: page([record(1), last], has_more=True))

    def test_no_ids_are_fine_on_a_last_page(self) -> None:
        assert pull_all(lambda query: page([b"{}", b"{}"], has_more=False)) == [b"{}", b"{}"]

    @pytest.mark.parametrize(
        "body",
        [b'{"data":[]}', b'{"has_more":false}', b'{"data":{},"has_more":false}', b'{"data":[],"has_more":0}', b"{}",
         b'{"consent":{"id":"x"}}', b"7", b"null", b'"text"'],
    )  # fmt: skip
    def test_json_that_is_no_page(self, body: bytes) -> None:
        with pytest.raises(IntergiroResponseError, match="neither an array nor"):
            pull_all(lambda query: body)

    @pytest.mark.parametrize(
        "body",
        [b"", b"<html>secret</html>", page([record(1)], has_more=True)[:-9],
         b'{"data":[{"id":"\xff"}],"has_more":false}',
         b'{"data":[01],"has_more":false}', b"[" * 100_000, b'[{"id":"a\nb"}]'],
    )  # fmt: skip
    def test_not_json(self, body: bytes) -> None:
        with pytest.raises(IntergiroResponseError, match="not JSON, or is incomplete"):
            pull_all(lambda query: body)

    def test_the_answer_is_neither_in_the_message_nor_behind_it(self) -> None:
        with pytest.raises(IntergiroResponseError) as caught:
            pull_all(lambda query: b'{"data":[{"iban":"SE4550000000058398257466"')
        assert "SE45" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    def test_a_bad_page_is_not_yielded(self) -> None:
        bank = ListInMemory([record(n) for n in range(4)], lambda n: b"garbage" if n == 2 else None)
        pages = iter_pages(pages_of(bank), {"limit": 2})
        assert len(next(pages).records) == 2
        with pytest.raises(IntergiroResponseError, match=r"^page 2 \(starting after 'r00001'\)"):
            next(pages)


@pytest.mark.parametrize("body", [b'{"data":null,"has_more":false}', b'\xef\xbb\xbf{"data":[],"has_more":false}'])
def test_an_empty_list_is_spelled_in_several_ways(body: bytes) -> None:
    assert only_page(body) == ([], [], [], False)


def test_a_record_after_which_to_go_on_is_gone() -> None:
    bank = ListInMemory([record(n) for n in range(6)])

    def forgetful(query: dict[str, Any]) -> bytes:
        if "starting_after" in query:
            raise IntergiroNotFound(404)
        return bank(query)

    pages = iter_pages(pages_of(forgetful), {"limit": 2})
    next(pages)
    with pytest.raises(IntergiroResponseError, match="has probably been deleted"):
        next(pages)
    with pytest.raises(IntergiroNotFound):
        next(iter_pages(pages_of(forgetful), {"starting_after": "r00001"}))


def test_records_are_raw() -> None:
    assert all(isinstance(r, msgspec.Raw) for r in only_page(b'{"data":[{"id":"a"}],"has_more":false}').records)
