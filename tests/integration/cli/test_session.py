# SPDX-License-Identifier: Apache-2.0
"""`session show`, `renew`, `reset` and `prune` against the sandbox, with real Variables."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider import exceptions as x
from intergiro_provider.cli.removal import prune, reset
from intergiro_provider.cli.renew import renew
from intergiro_provider.cli.show import show
from intergiro_provider.cli.target import Target, target
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, LoginHistory, TokenPair
from tests.integration.cli.running import Connect, be_used, new_process, use

pytestmark = pytest.mark.integration


def stored(at: Target) -> TokenPair:
    session = at.store.read("session")
    assert isinstance(session, TokenPair)
    return session


def put(key: str, value: str) -> None:
    from airflow.models.variable import Variable

    Variable.set(key, value)


def flat(text: str) -> str:
    """The text on one line, wherever it was wrapped."""
    return " ".join(text.split())


def held_lease(at: Target) -> None:
    """Somebody renews, or has died while renewing."""
    at.store.write("lease", Lease(stored(at).gen, "n", holder="worker-7:42"))


# show


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
    # Both by the bank's clock, which was advanced between them.
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
    assert (result.data["lease"]["verdict"], result.data["lease"]["state"]) == ("budget", "free")
    assert result.data["lease"]["verdict_until"] == result.data["logins"]["next_at"]
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


# renew


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
    with pytest.raises(x.BankUnavailable, match="it answered 503"):
        renew(at.conn_id)
    counters = sandbox.counters()
    assert (counters.logins, counters.refreshes) == (1, 0)


# reset


def test_a_reset_costs_one_login_and_the_ledger_stays(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    be_used(at, sandbox)
    result = reset(at.conn_id, confirmed=True, force=False)
    assert result.data["deleted"]
    assert at.store.read("session") is None
    assert show(at.conn_id).data["logins"]["counted"] == 1
    use(at)
    assert sandbox.counters().logins == 2
    assert show(at.conn_id).data["logins"]["counted"] == 2


def test_resets_are_no_way_around_the_budget(sandbox: Sandbox, connect: Connect) -> None:
    at = connect(max_logins_per_hour=1)
    be_used(at, sandbox)
    with pytest.raises(x.IntergiroValueError, match="tasks fail until .* use --force"):
        reset(at.conn_id, confirmed=True, force=False)
    use(at)
    reset(at.conn_id, confirmed=True, force=True)
    with pytest.raises(x.LoginBudgetExhausted):
        use(at)
    assert sandbox.counters().logins == 1


def test_a_login_struck_off_the_ledger_is_entered_before_its_session_goes(sandbox: Sandbox, connect: Connect) -> None:
    at = connect(max_logins_per_hour=1)
    be_used(at, sandbox)
    login = stored(at).login
    at.store.write("logins", LoginHistory())
    reset(at.conn_id, confirmed=True, force=True)
    ledger = at.store.read("logins")
    assert isinstance(ledger, LoginHistory)
    assert [entry.nonce for entry in ledger.logins] == [login]
    assert ledger.logins[0].until > time.time() + 3500
    with pytest.raises(x.LoginBudgetExhausted):
        use(at)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the renewals in this test waited for."""
    seen: list[str] = []
    sleep = driver._Run._sleep

    def recorded(run: Any, effect: Any) -> None:
        seen.append(effect.why)
        sleep(run, effect)

    monkeypatch.setattr(driver._Run, "_sleep", recorded)
    return seen


def test_a_reset_during_a_renewal_is_refused_and_forced_says_what_may_follow(connect: Connect) -> None:
    at = connect()
    use(at)
    held_lease(at)
    with pytest.raises(x.IntergiroValueError, match="under way, by worker-7:42"):
        reset(at.conn_id, confirmed=True, force=False)
    renewing = stored(at)
    result = reset(at.conn_id, confirmed=True, force=True)
    assert (result.data["deleted"], result.data["renewal_by"]) == (True, "worker-7:42")
    assert "it may store the session again within" in result.text
    at.store.write("session", replace(renewing, gen=renewing.gen + 1))
    assert show(at.conn_id).data["session"]["generation"] == renewing.gen + 1


def test_a_renewal_that_begins_while_a_person_thinks_is_seen(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    at = connect()
    use(at)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_: Any) -> str:
            held_lease(at)
            return "y\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(x.IntergiroValueError, match="under way, by worker-7:42"):
        reset(at.conn_id, confirmed=False, force=False)
    assert at.store.read("session") is not None


@pytest.mark.parametrize("before", ["logged in", "refreshed", "killed in a refresh", "killed in the first login"])
def test_after_a_reset_the_next_task_waits_for_nobody(
    sandbox: Sandbox, connect: Connect, waits: list[str], before: str
) -> None:
    at = connect()
    (be_used if before != "logged in" else lambda at, _: use(at))(at, sandbox)
    highest = stored(at).gen
    if before == "killed in a refresh":
        held_lease(at)
    elif before == "killed in the first login":
        at.store.delete("session")
        at.store.write("lease", Lease(0, "n", floor=highest))
    waits.clear()

    reset(at.conn_id, confirmed=True, force=before.startswith("killed"))
    use(at)

    assert set(waits) <= {""}, "neither for another holder of the lease nor for a late token pair"
    assert stored(at).gen > highest, "a long-running process may still hold the former pair"
    assert sandbox.counters().logins == 2


def test_a_reset_heals_a_broken_document(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    be_used(at, sandbox)
    put(at.store.name, "no JSON")
    assert reset(at.conn_id, confirmed=True, force=False).data["deleted"]
    use(at)


def test_a_reset_heals_a_session_of_another_lock(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    be_used(at, sandbox)
    at.store.write("session", replace(stored(at), lock="another"))
    reset(at.conn_id, confirmed=True, force=False)
    use(at)


@pytest.mark.parametrize(("answer", "deleted"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_a_person_is_asked(connect: Connect, monkeypatch: pytest.MonkeyPatch, answer: str, deleted: bool) -> None:
    at = connect()
    use(at)
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    if deleted:
        reset(at.conn_id, confirmed=False, force=False)
    else:
        with pytest.raises(x.IntergiroValueError, match="Nothing was changed"):
            reset(at.conn_id, confirmed=False, force=False)
    assert (at.store.read("session") is None) == deleted


def test_where_nobody_can_be_asked_nothing_is_changed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    at = connect()
    use(at)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(x.IntergiroValueError, match="--yes"):
        reset(at.conn_id, confirmed=False, force=False)
    assert at.store.read("session") is not None


# prune

TWO_KEYS = pytest.mark.parametrize("sandbox", [{"api_keys": ("one-key", "other-key")}], indirect=True)


def with_key(at: Target, key: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Give the connection another API key."""
    settings = at.settings
    fields = {"conn_type": "intergiro", "host": settings.origin, "password": key}
    monkeypatch.setenv(f"AIRFLOW_CONN_{at.conn_id.upper()}", json.dumps(fields))
    return target(at.conn_id)


def former(at: Target) -> dict[str, list[str]]:
    return {each["variable"]: each["connections"] for each in show(at.conn_id).data["former"]}


@TWO_KEYS
def test_the_session_of_a_former_key_is_listed_and_removed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    old, other = connect(), connect({"password": "other-key"})
    use(old)
    use(other)
    assert not former(other).keys() & {old.store.name, other.store.name}
    now = with_key(old, "other-key", monkeypatch)

    assert show(now.conn_id).data["shared_with"] == [other.conn_id]
    assert former(now)[old.store.name] == [now.conn_id]
    assert f"{old.store.name} (used by {now.conn_id})" in flat(show(now.conn_id).text)
    with pytest.raises(x.IntergiroValueError, match="--yes"):
        prune(now.conn_id, confirmed=False)
    result = prune(now.conn_id, confirmed=True)

    assert old.store.name in result.data["removed"]
    assert other.store.read("session") is not None
    assert (old.store.read("session"), old.store.read("lease")) == (None, None)
    # The bank still counts its login, should the key come back.
    assert f"{old.store.name}_logins" in result.data["kept"]
    assert old.store.name not in former(now)
    old.store.write("logins", LoginHistory())
    prune(now.conn_id, confirmed=True)
    assert old.store.read("logins") is None


@TWO_KEYS
def test_a_connection_in_a_secrets_backend_keeps_its_session(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at, file = connect({"password": "other-key"}), tmp_path / "connections.json"
    file.write_text(json.dumps({"vaulted": json.loads(sandbox.connection())}))
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", backend)
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps({"connections_file_path": str(file)}))
    vaulted = target("vaulted")
    use(vaulted)

    assert vaulted.store.name not in former(at)
    assert show(at.conn_id).data["unlisted"] == ["LocalFilesystemBackend"]
    prune(at.conn_id, confirmed=True)
    assert vaulted.store.read("session") is not None

    file.write_text("{")
    with pytest.raises(x.IntergiroValueError, match="cannot be read: .*vaulted"):
        prune(at.conn_id, confirmed=True)
    assert vaulted.store.read("session") is not None


def test_while_a_connection_cannot_be_read_nothing_is_removed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = connect()
    monkeypatch.setenv("AIRFLOW_CONN_MISTYPED", '{"conn_type": "intergiro", "extra": {"enviroment": "staging"}}')
    with pytest.raises(x.IntergiroValueError, match="cannot be read: mistyped"):
        prune(at.conn_id, confirmed=True)
