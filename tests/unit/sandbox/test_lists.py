# SPDX-License-Identifier: Apache-2.0
"""Lists: cursors, order, filters and limits, compared with a naive implementation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intergiro_provider.sandbox.collection import Rows, iso
from intergiro_provider.sandbox.lists import Invalid, page
from intergiro_provider.sandbox.settings import Settings
from intergiro_provider.sandbox.transactions import Spread, Transactions

NOW = datetime(2025, 11, 24, tzinfo=UTC)
ACCOUNTS = ["one", "two", "three"]


def tied() -> Transactions:
    """Return sixty transactions within six milliseconds. Most have equal times, also across page boundaries."""
    made = Transactions("v3", 1, [], Spread(0, NOW, 1.0), cached=1000)
    for serial in range(60):
        account, status = ACCOUNTS[serial % 3], ("pending", "completed")[serial % 2]
        record = {"account_id": account, "status": status, "correlation_id": f"batch-{serial % 5}"}
        made.add([record], 1_763_942_400_000 + serial * 7 % 6)
    for serial in range(0, 60, 7):
        made.change(serial, {}, 1_763_942_500_000 + serial % 3)
    return made


TIED = tied()
TRUTH = [json.loads(raw) for raw in TIED.rows(range(60))]
MOMENTS = sorted({row["created_at"] for row in TRUTH})


def ask(query: dict[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    as_sent = {name: value if isinstance(value, list) else [str(value)] for name, value in query.items()}
    answer = page(TIED, as_sent, settings or Settings())
    found: dict[str, Any] = json.loads(answer.body)
    assert answer.rows == len(found["data"])
    return found


def walk(query: dict[str, Any], cursor: str, settings: Settings) -> Iterator[list[dict[str, Any]]]:
    for _ in range(100):
        answer = ask(query, settings)
        yield answer["data"]
        if not answer["has_more"]:
            return
        last = answer["data"][-1 if cursor == "starting_after" else 0]
        query = {**query, cursor: last["id"]}
    raise AssertionError("no end")


def expected(query: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    rows = TRUTH
    if low := query.get("created_from"):
        rows = [
            r for r in rows if r["created_at"] > low or (settings.created_from_inclusive and r["created_at"] == low)
        ]
    if high := query.get("created_to"):
        rows = [
            r for r in rows if r["created_at"] < high or (settings.created_to_inclusive and r["created_at"] == high)
        ]
    for name, field in (("account_ids", "account_id"), ("statuses", "status"), ("correlation_ids", "correlation_id")):
        if name in query:
            rows = [row for row in rows if row[field] in query[name]]
    by = query.get("sort_by", "created_at")
    # At equal times of change, the order of creation decides.
    rows = sorted(rows, key=lambda row: (row[by], row["created_at"], row["id"]))
    return rows[::-1] if query.get("sort_type", "DESC") == "DESC" else rows


QUERIES = st.fixed_dictionaries(
    {"limit": st.integers(1, 100)},
    optional={
        "sort_by": st.sampled_from(["created_at", "updated_at"]),
        "sort_type": st.sampled_from(["ASC", "DESC"]),
        "created_from": st.sampled_from(MOMENTS),
        "created_to": st.sampled_from(MOMENTS),
        "account_ids": st.lists(st.sampled_from([*ACCOUNTS, "nothing"]), min_size=1, max_size=3),
        "statuses": st.lists(st.sampled_from(["pending", "completed"]), min_size=1, max_size=2),
        "correlation_ids": st.lists(st.sampled_from(["batch-0", "batch-3"]), min_size=1, max_size=2),
    },
)
WORLDS = st.builds(
    Settings,
    created_from_inclusive=st.booleans(),
    created_to_inclusive=st.booleans(),
)


@given(QUERIES, WORLDS)
def test_going_forward_shows_each_record_once_in_order(query: dict[str, Any], settings: Settings) -> None:
    pages = list(walk(query, "starting_after", settings))
    assert all(len(one) == query["limit"] for one in pages[:-1])
    assert [row for one in pages for row in one] == expected(query, settings)


@given(QUERIES, WORLDS)
def test_going_back_from_the_end_shows_the_same(query: dict[str, Any], settings: Settings) -> None:
    wanted = expected(query, settings)
    if wanted:
        pages = list(walk({**query, "ending_before": wanted[-1]["id"]}, "ending_before", settings))
        assert [row for one in reversed(pages) for row in one] == wanted[:-1]


@given(QUERIES, WORLDS, st.sampled_from(TRUTH))
def test_a_cursor_need_not_pass_the_filters(query: dict[str, Any], settings: Settings, cursor: dict[str, Any]) -> None:
    by = query.get("sort_by", "created_at")
    descending = query.get("sort_type", "DESC") == "DESC"

    def key(row: dict[str, Any]) -> tuple[str, str, str]:
        return row[by], row["created_at"], row["id"]

    wanted = [
        row for row in expected(query, settings) if (key(row) < key(cursor) if descending else key(row) > key(cursor))
    ]
    answer = ask({**query, "starting_after": cursor["id"]}, settings)
    assert answer["data"] == wanted[: query["limit"]]
    assert answer["has_more"] is (len(wanted) > query["limit"])


def test_ten_is_the_default_limit_and_has_more_is_exact() -> None:
    assert len(ask({})["data"]) == 10
    assert ask({"limit": 60})["has_more"] is False
    assert ask({"limit": 59})["has_more"] is True


def test_records_are_passed_on_byte_for_byte() -> None:
    body = page(TIED, {"limit": ["60"], "sort_type": ["ASC"]}, Settings()).body
    assert body == b'{"data":[' + b",".join(TIED.rows(range(60))) + b'],"has_more":false}'


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "1.0"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"starting_after": "nothing"}, "starting_after"),
        ({"starting_after": ""}, "starting_after"),
        ({"ending_before": "00000000-0000-4000-8000-000000000000"}, "ending_before"),
        ({"starting_after": TRUTH[3]["id"], "ending_before": TRUTH[5]["id"]}, "ending_before"),
        ({"sort_by": "amount"}, "sort_by"),
        ({"sort_type": "asc"}, "sort_type"),
        ({"created_from": "2025-11-24"}, "created_from"),
        ({"created_from": "2025-11-24T00:00:00"}, "created_from"),
        ({"created_from": "2025-13-24T00:00:00Z"}, "created_from"),
        ({"created_to": "2025-11-24T00:00:00 00:00"}, "created_to"),
        ({"created_to": ""}, "created_to"),
        ({"statuses": [""]}, "statuses"),
    ],
)
def test_what_does_not_validate_is_told_by_field(query: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        ask(query)
    assert caught.value.field == field


def test_bounds_are_read_with_offsets_and_fractions() -> None:
    early = MOMENTS[0]
    assert early == "2025-11-24T00:00:00.000Z"
    everything = ask({"limit": 60})["data"]
    assert ask({"limit": 60, "created_from": "2025-11-24T01:00:00+01:00"})["data"] == everything
    later = ask({"limit": 60, "created_from": "2025-11-24T00:00:00.0005Z"})["data"]
    assert later == [row for row in everything if row["created_at"] > early]
    assert ask({"created_from": MOMENTS[-1], "created_to": early})["data"] == []


def test_lists_of_values_are_repeated_keys() -> None:
    assert ask({"account_ids": "one,two", "limit": 60})["data"] == []
    assert len(ask({"account_ids": ["one", "two"], "limit": 60})["data"]) == 40


def test_unknown_parameters_are_ignored() -> None:
    assert ask({"colour": "blue"}) == ask({})


def test_small_lists_take_no_filters() -> None:
    rows = Rows([{"id": f"id{n}", "created_at": iso(1_763_942_400_000), "status": "active"} for n in (2, 0, 1)])
    answer = page(rows, {"sort_type": ["ASC"], "statuses": ["blocked"], "created_from": ["nonsense"]}, Settings())
    assert [row["id"] for row in json.loads(answer.body)["data"]] == ["id0", "id1", "id2"]
    answer = page(rows, {"sort_by": ["updated_at"], "sort_type": ["ASC"], "starting_after": ["id1"]}, Settings())
    assert [row["id"] for row in json.loads(answer.body)["data"]] == ["id2"]


def test_a_list_that_grows_under_its_reader() -> None:
    made = tied()
    query = {"limit": ["7"], "statuses": ["pending"], "sort_type": ["ASC"]}
    first = json.loads(page(made, query, Settings()).body)["data"]
    [booked] = made.add([{"account_id": "one", "status": "pending", "correlation_id": ""}], made.created[-1] + 5)
    seen = list(first)
    for _ in range(20):
        answer = json.loads(page(made, {**query, "starting_after": [seen[-1]["id"]]}, Settings()).body)
        seen += answer["data"]
        if not answer["has_more"]:
            break
    assert seen[-1] == booked
    assert len({row["id"] for row in seen}) == len(seen) == 31
