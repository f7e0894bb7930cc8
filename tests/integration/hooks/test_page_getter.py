# SPDX-License-Identifier: Apache-2.0
"""Pages of a list over real sockets: the same responses and rules as for any request, with less work."""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from intergiro_provider.exceptions import IntergiroNotFound, IntergiroValidationError
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.pull.pages import read_page
from intergiro_provider.sandbox import Sandbox
from tests.integration.hooks.connections import TRANSACTION, Connect

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("endpoint", "query"),
    [
        ("transactions", {"limit": 3}),
        ("/v3/transactions?sort_type=ASC", {"limit": 3, "starting_after": None}),
        ("transactions#part", {"statuses": ["completed", "pending"], "created_to": "2100-01-01T00:00:00+00:00"}),
        ("transactions?limit=2", {}),
    ],
)
def test_the_same_answer_as_run(connect: Connect, sandbox: Sandbox, endpoint: str, query: dict[str, Any]) -> None:
    hook = connect()
    got = hook.page_getter(endpoint, bytes)(query)
    assert got == hook.run(endpoint, query).content
    asked, as_ever = sandbox.requests()[-2:]
    assert asked["query"] == as_ever["query"]
    unlike = {name for name, value in asked["headers"] if [name, value] not in as_ever["headers"]}
    assert unlike == set()


def test_one_connection_and_one_renewal(connect: Connect, sandbox: Sandbox) -> None:
    get_page = connect().page_getter("transactions", bytes)
    get_page({})
    sandbox.reset_counters()
    get_page({})
    sandbox.expire_access_tokens()
    assert get_page({"limit": 2}).count(b'"request_id"') == 2
    get_page({})
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.unauthorized) == (0, 1, 2)  # the page, and the probe
    pages = [asked["connection"] for asked in sandbox.requests() if asked["path"] == TRANSACTION]
    assert len(set(pages)) == 1


def test_every_answer_is_told_and_bad_ones_raise(connect: Connect, sandbox: Sandbox) -> None:
    told: list[int] = []
    hook = connect()
    get_page = hook.page_getter("transactions", bytes, lambda status, retry_after: told.append(status))
    sandbox.fault("status", path=TRANSACTION, status=503, times=1)
    get_page({})
    assert told == [503, 200]
    with pytest.raises(IntergiroValidationError) as raised:
        get_page({"limit": 1000})
    assert raised.value.errors[0]["field"] == "limit"
    with pytest.raises(IntergiroNotFound):
        hook.page_getter("nothing_here", bytes)({})


@pytest.mark.parametrize("kind", ["drop", "drop_body"])
def test_what_breaks_off_is_asked_for_again(connect: Connect, sandbox: Sandbox, kind: str) -> None:
    get_page = connect().page_getter("transactions", bytes)
    whole = get_page({"limit": 5})
    sandbox.fault(kind, path=TRANSACTION, times=1)
    assert get_page({"limit": 5}) == whole


@pytest.mark.parametrize("how", ["html", "cut", "not_utf8"])
def test_what_is_not_json_is_asked_for_again(connect: Connect, sandbox: Sandbox, how: str) -> None:
    get_page = connect().page_getter("transactions", read_page)
    whole = get_page({"limit": 5})
    sandbox.fault("garbled", path=TRANSACTION, how=how, times=1)
    assert [bytes(r) for r in get_page({"limit": 5}).records] == [bytes(r) for r in whole.records]


def test_redirects_are_followed(connect: Connect, sandbox: Sandbox) -> None:
    hook = connect()
    sandbox.fault("redirect", path=TRANSACTION, to=f"{sandbox.url}/v3/accounts", times=2)
    assert hook.page_getter("transactions", bytes)({}) == hook.run("accounts").content


def test_a_fork_has_connections_of_its_own(connect: Connect, sandbox: Sandbox) -> None:
    get_page = connect().page_getter("transactions", bytes)
    mine = get_page({"limit": 5})
    child = os.fork()
    if not child:
        os._exit(get_page({"limit": 5}) != mine)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert get_page({"limit": 5}) == mine
    parent, forked, after = (asked["connection"] for asked in sandbox.requests()[-3:])
    assert parent == after != forked


def test_an_adapter_of_ones_own_is_asked(connect: Connect) -> None:
    sent: list[str] = []

    class Own(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            sent.append(request.url or "")
            return super().send(request, *args, **kwargs)

    hook = IntergiroHook(connect().intergiro_conn_id, adapter=Own())
    hook.page_getter("transactions", bytes)({"limit": 1})
    assert [url.rpartition("/")[2] for url in sent] == ["transactions?limit=1"]
