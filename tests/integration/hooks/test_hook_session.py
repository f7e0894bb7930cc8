# SPDX-License-Identifier: Apache-2.0
"""The session behind the hook, over real sockets against the sandbox, in real Variables."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.sandbox import Sandbox
from tests.integration.hooks.connections import Connect, again

pytestmark = pytest.mark.integration


def test_one_login_serves_every_request_and_hook(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()

    assert hook.run("transactions", {"limit": 3}).json()["data"]
    assert hook.run("/v3/accounts").status_code == 200
    assert again(hook).run(f"{sandbox.url}/v3/cards").status_code == 200

    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.unauthorized) == (1, 0, 0)


def test_requests_survive_expiry_with_one_refresh_each(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    for _ in range(3):
        assert hook.run("accounts").status_code == 200
        sandbox.expire_access_tokens()
    assert hook.get_conn().get(f"{sandbox.url}/v3/accounts").status_code == 200
    assert hook.get_conn().get("accounts", params={"limit": 1}).status_code == 200

    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes) == (1, 3)
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)


def test_a_session_that_has_ended_costs_one_login(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.end_sessions()

    assert hook.run("accounts").status_code == 200
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early, counters.refresh_reused) == (2, 0, 0, 0)
    assert counters.refresh_refused == 1


def test_threads_share_one_renewal(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(hook.run("accounts").status_code)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 16
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_reused) == (1, 1, 0)
    assert counters.connections < 16 + 8


@pytest.mark.parametrize("body", ["json", "text", "bytes"])
def test_a_body_is_sent_again_whole_after_a_renewal(sandbox: Sandbox, connect: Connect, body: str) -> None:
    account = json.loads(sandbox.records("/v3/accounts")[0])["id"]
    payment = {
        "request_id": str(uuid.uuid4()),
        "account_id": account,
        "amount": 100,
        "reference": "rent é",
        "counterparty": {"name": "Ada", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}},
    }
    text = json.dumps(payment)
    data: Any = {"json": payment, "text": text, "bytes": text.encode()}[body]
    hook = connect(method="POST")
    again(hook).run("accounts")
    sandbox.expire_access_tokens()

    response = hook.run("transactions/pay", data, headers={"Content-Type": "application/json"})

    assert response.status_code < 300
    counters = sandbox.counters()
    assert (counters.refreshes, counters.writes, counters.duplicates) == (1, 1, 0)


def test_a_refused_endpoint_of_a_living_session_is_a_permission(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.set(always_401=["/v3/cards"])
    hook = connect()

    with pytest.raises(x.IntergiroAuthError, match="GET /v3/cards"):
        hook.run("cards")
    assert hook.run("accounts").status_code == 200
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early) == (1, 0, 0)


def test_a_wrong_key_is_final_and_not_tried_again(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(fields={"password": "wrong-key-000"})

    for _ in range(2):
        with pytest.raises(x.IntergiroAuthError, match="API key") as caught:
            hook.run("accounts")
        assert "wrong-key-000" not in str(caught.value)
    assert sandbox.counters().login_refused == 1


def test_the_login_budget_ends_with_a_time(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(max_logins_per_hour=2)
    for _ in range(2):
        hook.run("accounts")
        sandbox.end_sessions()

    with pytest.raises(x.LoginBudgetExhausted) as caught:
        hook.run("accounts")
    assert sandbox.counters().logins == 2
    left = caught.value.next_at.timestamp() - time.time()
    assert 3000 < left < 3700
    assert f"{caught.value.next_at:%H:%M:%S}" in str(caught.value)


def test_a_refresh_without_an_answer_is_repeated_once(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault("status", path="/v3/auth/refresh", times=1, status=503)

    assert hook.run("accounts").status_code == 200
    assert (sandbox.counters().logins, sandbox.counters().refreshes) == (1, 1)


@pytest.mark.parametrize(("kind", "params"), [("lose_response", {}), ("garbled", {"how": "html"}), ("drop_body", {})])
def test_a_rotation_whose_answer_is_lost_costs_one_login(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any]
) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault(kind, path="/v3/auth/refresh", times=1, **params)

    assert hook.run("accounts").status_code == 200
    assert sandbox.counters().logins == 2


@pytest.mark.parametrize(
    ("kind", "params"), [("status", {"status": 503}), ("response", {"body": "<html>"}), ("drop", {}), ("redirect", {})]
)
def test_an_ill_bank_is_never_answered_with_a_login(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any]
) -> None:
    hook = connect()
    hook.run("accounts")
    sandbox.expire_access_tokens()
    if kind == "redirect":
        params = {"to": f"{sandbox.url}/v3/auth/login"}
    sandbox.fault(kind, path="/v3/auth/refresh", **params)

    with pytest.raises(x.BankUnavailable):
        hook.run("accounts")
    assert sandbox.counters().logins == 1


def test_a_session_kept_over_a_fork_does_not_mix_answers(sandbox: Sandbox, connect: Connect) -> None:
    import os

    session = connect().get_conn()
    session.get("accounts")
    before = sandbox.counters().connections
    if (child := os.fork()) == 0:
        os._exit(0 if session.get("cards").status_code == 200 else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert sandbox.counters().connections == before + 1
