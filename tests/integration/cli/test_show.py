# SPDX-License-Identifier: Apache-2.0
"""`session show` against the sandbox, with real Variables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.cli.show import show
from intergiro_provider.sandbox import Sandbox
from tests.integration.cli.running import Connect, flat, held_lease, put, stored, use

pytestmark = pytest.mark.integration


def test_before_the_first_task(connect: Connect) -> None:
    result = show(connect().conn_id)
    assert (result.data["session"], result.data["lease"], result.failed) == (None, None, False)
    assert result.data["logins"] == {"counted": 0, "allowed": 3, "next_at": None}
    assert "none stored; the next task logs in" in flat(result.text)
    assert "0 of 3 within the hour; 3 more allowed now" in flat(result.text)


def test_what_lives_who_wrote_it_and_how_old_it_is(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    sandbox.advance(600)
    sandbox.expire_access_tokens()
    use(at)
    before = sandbox.counters()

    result = show(at.conn_id)

    assert sandbox.counters() == before
    session = result.data["session"]
    assert (session["state"], session["generation"], session["written_by"]) == ("stored", 2, stored(at).writer)
    # Both times are by the bank's clock, which was advanced between them.
    assert 590 <= session["login_age"] - session["access_token_age"] <= 660
    assert result.data["logins"]["counted"] == 1
    assert result.data["lease"]["state"] == "void"
    assert "generation 2, written by" in flat(result.text)
    assert "1 of 3 within the hour; 2 more allowed now" in flat(result.text)


def test_a_renewal_under_way_names_its_process(connect: Connect) -> None:
    at = connect()
    use(at)
    held_lease(at)
    result = show(at.conn_id)
    assert (result.data["lease"]["state"], result.data["lease"]["holder"]) == ("held", "worker-7:42")
    assert "held by worker-7:42" in flat(result.text)


def test_a_used_up_budget_says_when_the_next_login_is_allowed(sandbox: Sandbox, connect: Connect) -> None:
    at = connect(max_logins_per_hour=1)
    use(at)
    sandbox.end_sessions()
    with pytest.raises(x.LoginBudgetExhausted):
        use(at)
    result = show(at.conn_id)
    assert result.data["logins"]["counted"] == 1
    assert result.data["logins"]["next_at"] is not None
    assert (result.data["lease"]["release_reason"], result.data["lease"]["state"]) == ("budget", "free")
    assert result.data["lease"]["blocked_until"] == result.data["logins"]["next_at"]
    assert "the login budget was used up" in flat(result.text)


@pytest.mark.parametrize("text", ["no JSON", '{"kind": "session"}'])
def test_a_broken_document_is_a_problem_and_the_rest_is_shown(connect: Connect, text: str) -> None:
    at = connect()
    use(at)
    put(at.store.name, text)
    result = show(at.conn_id)
    assert result.failed
    assert "cannot be used" in flat(result.text)
    assert result.data["logins"]["counted"] == 1


@pytest.mark.parametrize(("suffix", "name"), [("_logins", "logins"), ("_lease", "lease")])
def test_what_cannot_be_read_is_not_taken_for_nothing(connect: Connect, suffix: str, name: str) -> None:
    at = connect()
    use(at)
    put(at.store.name + suffix, "no JSON")
    result = show(at.conn_id)
    assert result.failed
    assert result.data[name]["counted" if name == "logins" else "state"] in (None, "unknown")
    assert "not known, see below" in flat(result.text)
    assert result.data["session"]["generation"] == 1


def test_a_hidden_variable_is_a_problem(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    at = connect()
    use(at)
    monkeypatch.setenv(f"AIRFLOW_VAR_{at.store.name.upper()}_LEASE", "x")
    result = show(at.conn_id)
    assert result.failed
    assert "hides the Variable" in result.data["problems"][0]


def test_another_lock_than_the_session_s_is_a_problem(connect: Connect) -> None:
    at = connect()
    use(at)
    at.store.write("session", replace(stored(at), lock="another"))
    result = show(at.conn_id)
    assert result.failed
    assert result.data["lock"] == {"conn_id": None, "used_by_session": True, "matches": False}


def test_there_must_be_a_connection(airflow_db: object) -> None:
    with pytest.raises(x.IntergiroValueError, match="There is no connection 'nowhere'"):
        show("nowhere")


def test_a_connection_that_cannot_be_parsed_is_not_quoted(airflow_db: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "intergiro://:the/secret@host:the-port")
    with pytest.raises(x.IntergiroValueError, match="cannot be read|There is no connection") as raised:
        show("broken")
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None
