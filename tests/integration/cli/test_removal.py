# SPDX-License-Identifier: Apache-2.0
"""`session reset` and `session prune` against the sandbox, with real Variables."""

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
from intergiro_provider.cli.show import show
from intergiro_provider.cli.target import Target, target
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session import driver
from intergiro_provider.session.documents import Lease, LoginHistory
from tests.integration.cli.running import Connect, be_used, flat, held_lease, put, stored, use

pytestmark = pytest.mark.integration


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
    """Record the reasons for the waits of renewals in this test."""
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
    with pytest.raises(x.IntergiroValueError, match="in progress, by worker-7:42"):
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
    with pytest.raises(x.IntergiroValueError, match="in progress, by worker-7:42"):
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


TWO_KEYS = pytest.mark.parametrize("sandbox", [{"api_keys": ("one-key", "other-key")}], indirect=True)


def with_key(at: Target, key: str, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Change the API key of the connection."""
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
    # The bank still counts the login, in case the key is used again.
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
