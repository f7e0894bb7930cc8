# SPDX-License-Identifier: Apache-2.0
"""Airflow's API server or metadata database is down, hangs, is slow, or comes back.

Also: the session's Variables are deleted, edited, restored, encrypted with another key, or hidden. Both share one API
server.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet

from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import Lease, TokenPair
from intergiro_provider.session.store import VariableStore
from tests.integration.outages.airflow3 import Server, as_task
from tests.integration.outages.conftest import AIRFLOW_3
from tests.integration.outages.proxy import Mode, Proxy
from tests.integration.outages.table import Row
from tests.integration.outages.world import SHORT, UNREACHABLE, World
from tests.integration.session.services import wait_until

pytestmark = pytest.mark.integration

REFRESH = "/v3/auth/refresh"
SLOTS = ("session", "lease", "logins")


def outage(world: World, row: Row, proxy: Proxy, mode: Mode) -> None:
    """Run a task during this outage, which must fail without a request to the bank; and another task afterwards."""
    world.begin(refreshed=False)
    before = world.bank.counters().requests
    with proxy.being(mode):
        world.check(row, world.attempt())
    assert world.bank.counters().requests == before
    world.succeed()
    world.check_logins(row)
    assert world.bank.counters().refreshes == 0


def test_api_down_at_the_start(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "refuse")


def test_api_drops_connections(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "drop")


GIVES_UP = pytest.mark.parametrize("task_world", [1.5], indirect=True)


@GIVES_UP
@pytest.mark.exhaustive
def test_api_hangs(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "hang")


@GIVES_UP
@pytest.mark.exhaustive
def test_api_answers_get_lost(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "lose_responses")


def test_database_down_behind_the_api(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.metadata, "refuse")


@GIVES_UP
@pytest.mark.exhaustive
def test_database_hangs_behind_the_api(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.metadata, "hang")


def test_database_down(postgres_world: World, row: Row, metadata: tuple[str, Proxy]) -> None:
    outage(postgres_world, row, metadata[1], "refuse")


def test_api_down_with_a_living_token(task_world: World, row: Row, api_server: Server) -> None:
    task_world.begin(refreshed=False)
    with api_server.api.being("refuse"):
        task_world.check(row, task_world.attempt(new=False))
    task_world.check_logins(row)


def test_api_down_when_the_token_expires(task_world: World, row: Row, api_server: Server) -> None:
    world = task_world
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    with api_server.api.being("refuse"):
        world.check(row, world.attempt(new=False))
    assert world.bank.counters().by_path[f"POST {REFRESH}"] == 0
    world.succeed()
    world.check_logins(row)
    assert world.bank.counters().refreshes == 1


@contextlib.contextmanager
def down_after_the_refresh(world: World, proxy: Proxy, seconds: float) -> Iterator[None]:
    """Start an outage while the bank handles a refresh. It ends these seconds after the response."""
    world.bank.fault("latency", path=REFRESH, seconds=2.0)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            wait_until(lambda: world.bank.counters().by_path[f"POST {REFRESH}"] > 0)
            with proxy.being("refuse"):
                time.sleep(2.0 + seconds)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failed


def test_api_down_while_a_refresh_is_under_way(task_world: World, row: Row, api_server: Server) -> None:
    world = task_world
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    with down_after_the_refresh(world, api_server.api, 2.0):
        world.check(row, world.attempt())
    assert world.stored().gen == 2
    world.succeed()
    world.check_logins(row)


def down_for_long(world: World, row: Row, proxy: Proxy) -> None:
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    timings = replace(UNREACHABLE, call=5.0, persist=0.5)
    world.timings(timings)
    with down_after_the_refresh(world, proxy, timings.persist_until + 2.0):
        world.check(row, world.attempt())
    assert world.stored().gen == 1
    # The stored refresh token is used up. The new one is lost with that task.
    world.timings(SHORT)
    world.bank.expire_access_tokens()
    world.succeed()
    world.check_logins(row)


@pytest.mark.exhaustive
def test_api_down_for_long_after_a_refresh(task_world: World, row: Row, api_server: Server) -> None:
    down_for_long(task_world, row, api_server.api)


@pytest.mark.exhaustive
def test_database_down_for_long_after_a_refresh(postgres_world: World, row: Row, metadata: tuple[str, Proxy]) -> None:
    down_for_long(postgres_world, row, metadata[1])


def test_two_writers_at_once(postgres_world: World, row: Row) -> None:
    """Other writers insert and replace the Variable between the read and the write of each."""
    world = postgres_world
    failures: list[Exception] = []
    start = threading.Barrier(6)

    def write(number: int) -> None:
        store = VariableStore(Codec("", ""), world.variable)
        try:
            start.wait(120)
            for _ in range(10):
                store.write("lease", Lease(0, f"n{number}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert world.stored("lease").nonce in {f"n{number}" for number in range(6)}
    world.put(None, "lease")
    world.check(row, world.attempt())
    world.check_logins(row, own=1)


def test_api_refuses_the_task(task_world: World, row: Row, api_server: Server) -> None:
    task_world.begin(refreshed=False)
    with as_task(api_server.url, secret="another" * 10):
        task_world.check(row, task_world.attempt())
    task_world.succeed()
    task_world.check_logins(row)


@pytest.mark.exhaustive
def test_api_too_slow(task_world: World, row: Row, api_server: Server) -> None:
    world = task_world
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    world.timings(replace(SHORT, lease_write=0.8, lease_round=1.0))
    api_server.api.delay = 0.9
    try:
        world.check(row, world.attempt())
    finally:
        api_server.api.delay = 0.0
    assert world.bank.counters().by_path[f"POST {REFRESH}"] == 0
    world.succeed()
    world.check_logins(row)


# The session's Variables.


@pytest.fixture(params=["database", "api"] if AIRFLOW_3 else ["database"])
def any_world(request: pytest.FixtureRequest) -> World:
    """Return a world for each way to access Variables."""
    world: World = request.getfixturevalue("task_world" if request.param == "api" else "world")
    return world


def pair(world: World) -> tuple[str, str]:
    """Return an access token and a refresh token from a manual login."""
    import requests

    answer = requests.post(f"{world.bank.url}/v3/auth/login", json={"api_key": world.bank.api_key}, timeout=60).json()
    return answer["access_token"], answer["refresh_token"]


def by_hand(access_token: str, refresh_token: str) -> str:
    return json.dumps({"access_token": access_token, "refresh_token": refresh_token})


def test_variable_deleted(any_world: World, row: Row) -> None:
    world = any_world
    world.begin()
    world.put(None)
    world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


@pytest.mark.exhaustive
def test_all_variables_deleted(any_world: World, row: Row) -> None:
    world = any_world
    world.begin()
    for slot in SLOTS:
        world.put(None, slot)
    world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


@pytest.mark.parametrize("text", ["{ this is no JSON", ""])
def test_variable_garbled(any_world: World, row: Row, text: str) -> None:
    world = any_world
    world.begin(refreshed=False)
    good = world.stored()
    world.put(text)
    world.check(row, world.attempt())
    world.put(good)
    world.succeed()
    world.check_logins(row)


def test_variable_of_another_kind(any_world: World, row: Row) -> None:
    world = any_world
    world.begin(refreshed=False)
    good = world.stored()
    world.put(world.text(world.stored("lease"), "lease"))
    world.check(row, world.attempt())
    world.put(good)
    world.succeed()
    world.check_logins(row)


def test_edited_in_the_ui(any_world: World, row: Row) -> None:
    world = any_world
    world.begin(refreshed=False)
    shown = json.loads(world.text(world.stored())) | {"access_token": "***", "refresh_token": "***"}
    world.put(json.dumps(shown))
    world.check(row, world.attempt())
    world.put(None)
    world.succeed()
    world.check_logins(row)


def test_restored_from_a_backup(any_world: World, row: Row) -> None:
    world = any_world
    world.begin(refreshed=False)
    backup = {slot: world.stored(slot) for slot in SLOTS}
    world.bank.expire_access_tokens()
    world.succeed()
    for slot, document in backup.items():
        world.put(document, slot)
    world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


def encrypted_by_another(world: World) -> None:
    """Store the session encrypted with another Fernet key, as another component would."""
    good: TokenPair = world.stored()
    with world.monkeypatch.context() as patch:
        fernet = Fernet(Fernet.generate_key())
        fernet.is_encrypted = True  # type: ignore[attr-defined]
        patch.setattr("airflow.models.variable.get_fernet", lambda: fernet)
        world.put(good)


def test_another_fernet_key(world: World, row: Row) -> None:
    world.begin(refreshed=False)
    good = world.stored()
    encrypted_by_another(world)
    world.check(row, world.attempt())
    world.put(good)
    world.succeed()
    world.check_logins(row)


def test_another_fernet_key_on_the_api_server(task_world: World, row: Row) -> None:
    task_world.begin(refreshed=False)
    good = task_world.stored()
    encrypted_by_another(task_world)
    task_world.check(row, task_world.attempt())
    task_world.put(good)
    task_world.succeed()
    task_world.check_logins(row)


def test_shadowed_on_the_worker(any_world: World, row: Row) -> None:
    world = any_world
    world.begin(refreshed=False)
    with world.monkeypatch.context() as patch:
        patch.setenv(f"AIRFLOW_VAR_{world.variable.upper()}", by_hand("old", "older"))
        world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


@pytest.mark.exhaustive
def test_shadowed_by_a_backend(task_world: World, row: Row, api_server: Server) -> None:
    world = task_world
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    with api_server.backend({world.variable: world.text(world.stored())}):
        world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)


def test_shadowed_by_a_backend_for_the_next(task_world: World, row: Row, api_server: Server) -> None:
    world = task_world
    world.begin(refreshed=False)
    world.bank.expire_access_tokens()
    with api_server.backend({world.variable: world.text(world.stored())}):
        world.succeed()
        for _ in range(2):
            world.check(row, world.attempt())
    world.succeed()
    world.check_logins(row)
