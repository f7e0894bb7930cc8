# SPDX-License-Identifier: Apache-2.0
"""`check` against the sandbox, real Variables and connections, and a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from intergiro_provider.cli import check_airflow
from intergiro_provider.cli.check import check
from intergiro_provider.exceptions import BankUnavailable, IntergiroAuthError
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.session.documents import Lease, TokenPair
from tests.integration.cli.running import Connect, found, use
from tests.integration.session import services

pytestmark = pytest.mark.integration

KEY = "6f3f2f3e-0000-4000-8000-0123456789ab"

WHAT = [
    "versions", "fernet_key", "variables", "execution_api", "connection", "sharing", "former_sessions", "shadowing",
    "session", "logins", "lock", "connection_test", "bank", "clock",
]  # fmt: skip


@pytest.fixture(autouse=True)
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that responds as Airflow's API server does to the one request of `check`."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/execution/health" else 404)
            self.end_headers()

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://127.0.0.1:{server.server_port}/execution/"
        )
        yield
        server.shutdown()


def add_to_database(conn_id: str, **fields: Any) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id=conn_id, **fields))


def clear_connections() -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(Connection))


def variables() -> list[str]:
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return list(session.scalars(select(Variable.key)))


def test_a_sound_deployment(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    use(at)
    before, stored = sandbox.counters(), variables()

    result = check(at.conn_id, login=False)

    assert [finding["what"] for finding in result.data] == WHAT
    assert {finding["what"]: finding["finding"] for finding in result.data if finding["state"] != "ok"} == {}
    assert not result.failed
    after = sandbox.counters()
    assert (after.logins, after.refreshes) == (before.logins, before.refreshes)
    # Threads of earlier tests may still write leases.
    left = [name for name in variables() if name in stored or not name.endswith("_lease")]
    assert left == stored, "what was tried has been cleared away"


def test_what_needs_no_connection_is_looked_at_without_one(airflow_db: object) -> None:
    result = check("nowhere", login=False)
    assert [finding["what"] for finding in result.data] == [*WHAT[:4], "connection"]
    assert result.data[-1]["state"] == "error"
    assert result.failed


def test_the_api_key_is_tried_when_asked_for_within_the_budget(sandbox: Sandbox, connect: Connect) -> None:
    at = connect(max_logins_per_hour=1)
    assert found(at, "login", login=True)["state"] == "ok"
    assert sandbox.counters().logins == 1
    use(at)
    finding = found(at, "login", login=True)
    assert finding["state"] == "warning"
    assert "Not tried" in finding["finding"]
    assert sandbox.counters().logins == 2


def test_where_logins_cannot_be_counted_none_is_tried(sandbox: Sandbox, connect: Connect) -> None:
    from airflow.models.variable import Variable

    at = connect()
    Variable.set(f"{at.store.name}_logins", "no JSON")
    assert found(at, "logins")["state"] == "error"
    assert "Not tried" in found(at, "login", login=True)["finding"]
    assert sandbox.counters().logins == 0


def test_a_wrong_key_is_an_error_only_a_login_finds(connect: Connect) -> None:
    at = connect({"password": "wrong"})
    assert not check(at.conn_id, login=False).failed
    assert found(at, "login", login=True)["state"] == "error"


def test_a_key_that_a_task_found_refused_is_an_error(connect: Connect, sandbox: Sandbox) -> None:
    at = connect({"password": "wrong"})
    with pytest.raises(IntergiroAuthError):
        use(at)
    logins = sandbox.counters().logins
    finding = found(at, "session")
    assert finding["state"] == "error"
    assert "the bank refused the API key (40" in finding["finding"]
    assert check(at.conn_id, login=False).failed
    assert sandbox.counters().logins == logins
    # There was no other attempt, so the finding stays.
    lease = at.store.read("lease")
    assert isinstance(lease, Lease)
    at.store.write("lease", replace(lease, blocked_until=1.0))
    assert found(at, "session")["state"] == "error"
    at.store.write("lease", replace(lease, pair_nonce="of another pair"))
    assert found(at, "session")["state"] == "ok"


def test_a_bank_that_gave_no_session_is_a_warning_while_that_holds(connect: Connect, sandbox: Sandbox) -> None:
    at = connect()
    sandbox.fault("status", status=503)
    with pytest.raises(BankUnavailable):
        use(at)
    assert found(at, "session")["state"] == "warning"
    lease = at.store.read("lease")
    assert isinstance(lease, Lease)
    at.store.write("lease", replace(lease, blocked_until=1.0))
    assert found(at, "session")["state"] == "ok"


@pytest.mark.parametrize("place", ["database", "environment"])
@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "http", "password": KEY},
        {"conn_type": "http", "extra": json.dumps({"X-Api-Key": KEY})},
        {"conn_type": "generic", "login": KEY},
        {"conn_type": "intergiro", "password": KEY, "host": "http://127.0.0.1:9"},
    ],
    ids=lambda fields: "-".join(fields.values())[:20],
)
def test_another_connection_with_the_key_and_without_the_session(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, place: str, fields: dict[str, Any]
) -> None:
    at = connect({"password": KEY})
    if place == "database":
        add_to_database("other", **fields)
    else:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(fields))
    try:
        finding = found(at, "sharing")
    finally:
        clear_connections()
    assert finding["state"] == "warning"
    assert finding["finding"].startswith("other (")
    assert "does not share the session" in finding["finding"]


@pytest.mark.parametrize(("key", "said"), [("", "in clear"), ("not-a-key", "is not a Fernet key")])
def test_without_a_good_fernet_key(airflow_db: object, monkeypatch: pytest.MonkeyPatch, key: str, said: str) -> None:
    from airflow.models import crypto

    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", key)
    if hasattr(crypto, "_fernet"):
        monkeypatch.setattr(crypto, "_fernet", None)
    else:
        monkeypatch.setattr(crypto, "get_fernet", crypto.get_fernet.__wrapped__)
    finding = check_airflow.fernet_key()
    assert finding.state == "error"
    assert said in finding.finding


def test_an_api_server_that_cannot_be_reached_may_be_right_here(monkeypatch: pytest.MonkeyPatch) -> None:
    if not check_airflow.AIRFLOW_3:
        pytest.skip("tasks of Airflow 2 reach the database themselves")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"http://127.0.0.1:{services.free_port()}/execution/")
    finding = check_airflow.execution_api()
    assert finding.state == "warning"
    assert "cannot be reached" in finding.finding


def test_where_the_connection_comes_from(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    assert "from the environment" in found(at, "connection")["finding"]


def test_names_that_mean_nothing_and_certificates_that_are_not_checked(connect: Connect) -> None:
    assert found(connect(colour="blue"), "connection")["state"] == "warning"
    assert found(connect(verify=False), "connection")["state"] == "error"
    assert found(connect({"conn_type": "http"}), "connection")["state"] == "error"


@pytest.mark.parametrize("place", ["database", "environment"])
@pytest.mark.parametrize(
    ("fields", "extra", "said"),
    [
        ({}, {"lock_conn_id": "x"}, "names another lock_conn_id"),
        ({}, {}, None),
    ],
)
def test_connections_that_get_into_each_other_s_way(
    sandbox: Sandbox,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    fields: dict[str, Any],
    extra: dict[str, Any],
    said: str | None,
) -> None:
    at = connect()
    other = {**json.loads(sandbox.connection()), **fields, "extra": json.dumps(extra)}
    if place == "database":
        add_to_database("other", **other)
    else:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    try:
        finding = found(at, "sharing")
    finally:
        clear_connections()
    if said is None:
        assert (finding["state"], finding["finding"]) == ("ok", "The session is shared with other.")
    else:
        assert finding["state"] == "error"
        assert finding["finding"].startswith("other ")
        assert said in finding["finding"]


@pytest.mark.parametrize("suffix", ["", "_LEASE", "_LOGINS"])
def test_a_hidden_variable(connect: Connect, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    at = connect()
    monkeypatch.setenv(f"AIRFLOW_VAR_{at.store.name.upper()}{suffix}", "x")
    finding = found(at, "shadowing")
    assert finding["state"] == "error"
    assert "EnvironmentVariablesBackend" in finding["finding"]


def test_a_session_of_another_lock(connect: Connect) -> None:
    at = connect()
    use(at)
    session = at.store.read("session")
    assert isinstance(session, TokenPair)
    at.store.write("session", replace(session, lock="another"))
    assert found(at, "session")["state"] == "error"


def test_many_hosts_without_a_strict_lock(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    at = connect()
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    finding = found(at, "lock")
    assert finding["state"] == "warning"
    assert "lock_conn_id" in finding["remedy"]


def test_a_strict_lock_that_works_and_one_that_is_down(
    connect: Connect, redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LOCK", redis_server.connection_json())
    at = connect(lock_conn_id="lock")
    finding = found(at, "lock")
    assert finding["state"] == "ok", finding
    assert "acquires a lock in" in finding["finding"]
    with closing(redis_server.client()) as client:
        assert client.keys("intergiro_lock:*") == [], "it was given back"

    nobody = {**json.loads(redis_server.connection_json()), "port": services.free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_LOCK", json.dumps(nobody))
    assert found(at, "lock")["state"] == "error"


def test_a_lock_connection_of_another_type(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LOCK", '{"conn_type": "http", "host": "x"}')
    at = connect(lock_conn_id="lock")
    assert found(at, "lock")["state"] == "error"


def test_a_bank_that_cannot_be_reached(connect: Connect) -> None:
    finding = found(connect({"port": services.free_port()}), "bank")
    assert finding["state"] == "error"
    assert "No response from" in finding["finding"]


def test_a_host_that_is_not_the_bank(sandbox: Sandbox, connect: Connect) -> None:
    at = connect()
    sandbox.fault("status", status=404)
    finding = found(at, "bank")
    assert finding["state"] == "warning"
    assert "404" in finding["finding"]


@pytest.mark.parametrize("sandbox", [{"date_skew": 600.0}, {"date_skew": -600.0}], indirect=True)
def test_clocks_that_differ(sandbox: Sandbox, connect: Connect) -> None:
    finding = found(connect(), "clock")
    assert finding["state"] == "warning"
    assert ("behind" if sandbox.settings()["date_skew"] > 0 else "ahead of") in finding["finding"]
