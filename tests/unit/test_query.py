# SPDX-License-Identifier: Apache-2.0
"""The values that a query may hold, and how it is joined with the query of an endpoint."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.query import _warn_once, warn_of_unknown_filters, whole_query


@pytest.mark.parametrize(
    ("endpoint", "query", "path", "expected"),
    [
        ("transactions", None, "transactions", {}),
        ("transactions", {"a": None, "b": 5, "c": "x"}, "transactions", {"b": 5, "c": "x"}),
        ("transactions", {"a": True, "b": [False, "x"]}, "transactions", {"a": "true", "b": ["false", "x"]}),
        ("t", {"a": ("x", "y"), "b": iter("xy"), "c": {"x"}}, "t", {"a": ["x", "y"], "b": ["x", "y"], "c": ["x"]}),
        ("t", {"a": UUID(int=1)}, "t", {"a": "00000000-0000-0000-0000-000000000001"}),
        ("t", {"a": datetime(2026, 1, 31, tzinfo=UTC)}, "t", {"a": "2026-01-31T00:00:00.000Z"}),
        ("t", {"a": date(2026, 1, 31)}, "t", {"a": "2026-01-31"}),
        ("/v3/t?a=1&b=x%20y&a=2#top", {"c": 3}, "/v3/t", {"a": ["1", "2"], "b": "x y", "c": 3}),
        ("t?a={{ a }}", {"ids": "{{ ids }}"}, "t", {"a": "{{ a }}", "ids": "{{ ids }}"}),
        ("t?a=1", {"a": None}, "t", {"a": "1"}),
        (None, {}, "", {}),
    ],
)
def test_what_is_sent(endpoint: Any, query: Any, path: str, expected: dict[str, Any]) -> None:
    assert whole_query(endpoint, query) == (path, expected)


@pytest.mark.parametrize(
    ("endpoint", "query", "said"),
    [
        ("t", {"account_ids": []}, "`account_ids` in the query is an empty list"),
        ("t", {"anything": ()}, "`anything` in the query is an empty list"),
        ("t", {"a": [None]}, "`a` in the query is a list that holds a NoneType"),
        ("t", {"a": [["x"]]}, "`a` in the query is a list that holds a list"),
        ("t", {"a": {"b": 1}}, "`a` in the query is a dict"),
        ("t", {"a": b"x"}, "`a` in the query is a bytes"),
        ("t", {"a": datetime(2026, 1, 31)}, "`a` in the query is 2026-01-31T00:00:00, a time without a time zone"),
        ("t?limit=5", {"limit": 5}, "`limit` is given twice, in `query` and in the endpoint"),
        ("t?statuses=", None, "`statuses` in the query is '': its template found no value"),
        ("t", {"account_ids": "None"}, "'None': its template found no value"),
        ("t", {"account_ids": ["a", ""]}, "'': its template found no value"),
        ("t", {"account_ids": "['a', 'b']"}, "the text of a list"),
        ("t", {"account_ids": 12e34}, "a number with a fraction or an exponent"),
        ("t", "limit=5", "`query` must be a dict, not str"),
        ("t", [("limit", 5)], "`query` must be a dict, not list"),
    ],
)
def test_what_is_refused(endpoint: str, query: Any, said: str) -> None:
    with pytest.raises(IntergiroValueError) as caught:
        whole_query(endpoint, query)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "name", "said"),
    [
        ("transactions", "acount_ids", "Did you mean `account_ids`?"),
        ("/v3/transactions", "status", "Did you mean `statuses`?"),
        ("transactions", "createdFrom", "Did you mean `created_from`?"),
        ("https://3d.intergiro.com/v3/transactions", "foo", "not a documented filter of transactions (created_from,"),
        ("events/7", "limmit", "Did you mean `limit`?"),
        ("accounts", "individual_id", ""),
        ("accounts", "created_from", ""),
        ("transactions", "starting_after", ""),
        ("transactions/x/notes", "statusses", ""),
        ("invoices", "limmit", ""),
    ],
)
def test_misspelt_filters_of_known_lists(caplog: pytest.LogCaptureFixture, endpoint: str, name: str, said: str) -> None:
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            warn_of_unknown_filters(endpoint, [name])
    assert caplog.text.count("not a documented filter") == bool(said)
    assert said in caplog.text
