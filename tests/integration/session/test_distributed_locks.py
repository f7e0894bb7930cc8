# SPDX-License-Identifier: Apache-2.0
"""The distributed lock by itself, against real servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import replace

import pytest

from intergiro_provider.exceptions import StoreUnavailable
from intergiro_provider.session.locks import open_lock
from tests.integration.session.members import Plan, fork_and_check, hold, hold_and_fork, member
from tests.integration.session.services import PASSWORD, Postgres, Redis, free_port, pgbouncer, wait_until

pytestmark = pytest.mark.integration

Service = Postgres | Redis
only_postgres = pytest.mark.parametrize("service", ["postgres"], indirect=True)


def test_one_at_a_time(plan: Plan) -> None:
    first, second, other = plan.open(), plan.open(), replace(plan, name="intergiro_session_other").open()

    assert first.try_acquire()
    assert not second.try_acquire()
    assert other.try_acquire()
    first.check()
    second.release()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    with pytest.raises(StoreUnavailable, match="was lost"):
        first.check()
    second.check()
    second.release()
    other.release()


def test_it_is_told_by_service_and_variable(plan: Plan) -> None:
    elsewhere = json.dumps(json.loads(plan.lock) | {"port": free_port()})
    theirs = {replace(plan, name="x").open().fingerprint, replace(plan, lock=elsewhere).open().fingerprint}

    assert plan.open().fingerprint == plan.open().fingerprint
    assert len({plan.open().fingerprint, *theirs}) == 3


def test_a_connection_as_a_task_sees_it_serves_as_well(plan: Plan) -> None:
    from airflow.providers.common.compat.sdk import Connection

    fields = json.loads(plan.lock)
    mine = open_lock("lock", plan.name, lambda conn_id: Connection(conn_id=conn_id, **fields), 20.0)

    assert mine.fingerprint == plan.open().fingerprint
    assert mine.try_acquire()
    assert not plan.open().try_acquire()
    mine.check()
    mine.release()


def test_a_killed_holder_frees_it(plan: Plan, service: Service) -> None:
    mine = plan.open()
    # PostgreSQL detects the closed connection, long before the TTL. In Redis, the key must expire.
    ttl = 300.0 if service.kind == "postgres" else 3.0
    began = time.monotonic()
    with member(hold, replace(plan, ttl=ttl)) as holder:
        assert holder.hear() == "held"
        assert service.kind == "redis" or not mine.try_acquire()
        holder.signal(signal.SIGKILL)
        wait_until(mine.try_acquire)

    assert service.kind == "postgres" or time.monotonic() - began >= ttl
    mine.release()


@only_postgres
def test_a_child_does_not_keep_the_lock_of_a_killed_parent(plan: Plan) -> None:
    plan = replace(plan, ttl=300.0)
    mine = plan.open()
    with member(hold_and_fork, plan) as holder:
        child = holder.hear()
        try:
            assert not mine.try_acquire()
            holder.signal(signal.SIGKILL)
            wait_until(mine.try_acquire)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
    mine.release()


def test_a_child_does_not_free_the_lock_of_its_parent(plan: Plan) -> None:
    with member(fork_and_check, plan) as holder:
        assert holder.hear() is None
    assert plan.open().try_acquire()


def test_a_silent_holder_loses_it_and_one_that_waits_does_not(plan: Plan) -> None:
    plan = replace(plan, ttl=3.0)
    mine, other = plan.open(), plan.open()
    assert mine.try_acquire()
    until = time.monotonic() + 1.2 * plan.ttl
    while time.monotonic() < until:
        mine.keep()
        assert not other.try_acquire()
        time.sleep(0.05)
    mine.check()

    wait_until(other.try_acquire)
    with pytest.raises(StoreUnavailable, match="was lost"):
        mine.check()
    mine.release()
    other.check()
    other.release()


def test_a_server_that_hangs_is_not_waited_for(plan: Plan, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("postgres_lock", "redis_lock"):
        monkeypatch.setattr(f"intergiro_provider.session.{module}.RESPONSE_TIMEOUT", 2.0)
    mine = plan.open()
    assert mine.try_acquire()
    with service.hanging(plan.name):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="'lock'"):
            mine.check()
        mine.release()
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("service", ["redis"], indirect=True)
def test_a_lock_whose_answer_was_lost_is_mine(plan: Plan, service: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intergiro_provider.session.redis_lock.RESPONSE_TIMEOUT", 2.0)
    mine, other = replace(plan, ttl=60.0).open(), plan.open()
    # With an open connection, so that the attempt is in flight when the server stops, and cannot be cancelled.
    mine._client.ping()
    with service.hanging(plan.name), monkeypatch.context() as speechless:
        speechless.setattr(mine, "_release", lambda: None)
        with pytest.raises(StoreUnavailable):
            mine.try_acquire()
    wait_until(lambda: bool(service.holders(plan.name)))

    assert not other.try_acquire()
    assert mine.try_acquire()
    mine.check()
    mine.release()
    assert other.try_acquire()
    other.release()


def test_a_server_that_never_answers_is_not_waited_for(
    plan: Plan, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.session.redis_lock.RESPONSE_TIMEOUT", 2.0)
    # psycopg uses whole seconds, at least two.
    monkeypatch.setattr("intergiro_provider.session.postgres_lock.CONNECT_TIMEOUT", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        lock = plan.lock.replace(str(service.port), str(silent.getsockname()[1]))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="'lock'"):
            replace(plan, lock=lock).open().try_acquire()
        assert time.monotonic() - began < 60


def test_a_refused_password_is_named_and_not_shown(plan: Plan, service: Service) -> None:
    if not service.own:
        pytest.skip("this server asks for no password")
    with pytest.raises(StoreUnavailable, match="'lock'") as caught:
        replace(plan, lock=plan.lock.replace(PASSWORD, "wr0ng-secret")).open().try_acquire()

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "wr0ng" not in str(caught.value)
    assert "password" in str(caught.value)


@only_postgres
def test_it_works_behind_a_transaction_pooler(plan: Plan, service: Postgres) -> None:
    with pgbouncer(service) as pooler:
        plan = replace(plan, lock=pooler.connection_json(), ttl=20.0)
        first, second = plan.open(), plan.open()
        assert first.try_acquire()
        for _ in range(8):
            assert not second.try_acquire()
            first.check()
            # The settings of the lock's transaction do not affect the next one on the same server connection.
            assert pooler.ask("SHOW statement_timeout") == [("0",)]
        first.release()
        for _ in range(3):
            assert second.try_acquire()
            # So often that the driver would prepare the statement, which would stay on the server connection.
            for _ in range(8):
                second.check()
            second.release()
        assert second.try_acquire()
        service.take_away(plan.name)
        with pytest.raises(StoreUnavailable, match="was lost"):
            second.check()
        second.release()

        session = plan.seed()
        assert plan.shared().renew(session, "/v3/cards").how == "refreshed"
        assert service.holders(plan.name) == []


@only_postgres
def test_a_pooler_with_no_connection_left_is_not_waited_for(
    plan: Plan, service: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.session.postgres_lock.RESPONSE_TIMEOUT", 2.0)
    with pgbouncer(service, pool_size=1) as pooler:
        plan = replace(plan, lock=pooler.connection_json(), ttl=20.0)
        first, second = plan.open(), plan.open()
        assert first.try_acquire()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            second.try_acquire()
        assert time.monotonic() - began < 60
        first.check()
        first.release()
        assert second.try_acquire()
        second.release()


@only_postgres
def test_a_fleet_of_waiters_does_not_use_up_the_connections(plan: Plan, service: Postgres) -> None:
    plan = replace(plan, ttl=60.0)
    holder = plan.open()
    assert holder.try_acquire()
    waiters = [plan.open() for _ in range(40)]
    assert not any(waiter.try_acquire() for waiter in waiters)
    # The server takes a moment to close.
    assert len(service.ask("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'airflow%%'")) <= 3
    holder.release()
