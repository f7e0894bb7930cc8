# SPDX-License-Identifier: Apache-2.0
"""`session renew` against the sandbox, with real Variables."""

from __future__ import annotations

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.cli.renew import renew
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from tests.integration.cli.running import Connect, new_process, stored, use

pytestmark = pytest.mark.integration


def test_a_session_that_the_bank_accepts_is_left_alone(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    result = renew(at.conn_id)
    assert result.data["outcome"] == "valid"
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early) == (1, 0, 0)


def test_a_401_is_answered_by_a_refresh(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    sandbox.expire_access_tokens()
    result = renew(at.conn_id)
    assert (result.data["outcome"], result.data["generation"], result.data["stored"]) == ("refreshed", 2, True)
    assert (sandbox.counters().logins, sandbox.counters().refreshes) == (1, 1)


def test_an_ended_session_costs_one_login_within_the_budget(sandbox: Sandbox, connect: Connect) -> None:
    at = connect(max_logins_per_hour=2)
    assert renew(at.conn_id).data["outcome"] == "logged_in"
    for expected in ("logged_in", None):
        sandbox.end_sessions()
        new_process()
        if expected is not None:
            assert renew(at.conn_id).data["outcome"] == expected
        else:
            with pytest.raises(x.LoginBudgetExhausted):
                renew(at.conn_id)
    assert sandbox.counters().logins == 2


def test_a_token_that_somebody_else_has_renewed_is_taken_up(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    old = stored(at)
    sandbox.expire_access_tokens()
    use(at)
    from intergiro_provider.hooks.intergiro import IntergiroHook

    shared = IntergiroHook(at.conn_id).shared_session(at.settings)
    shared.obtain()
    driver._caches[at.store.name, at.settings.key].pair = old
    assert renew(at.conn_id).data["outcome"] == "renewed_elsewhere"
    assert sandbox.counters().refreshes == 1


@pytest.mark.parametrize("sandbox", [{"api_keys": ("one-key:transactions",)}], indirect=True)
def test_a_key_without_the_role_still_has_a_session(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    renew(at.conn_id)
    assert renew(at.conn_id).data["outcome"] == "valid"


def test_a_bank_that_is_ill_is_not_asked_for_more(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    sandbox.fault("status", status=503)
    with pytest.raises(x.BankUnavailable, match="it returned 503"):
        renew(at.conn_id)
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes) == (1, 0)
