# SPDX-License-Identifier: Apache-2.0
"""Airflow's API server or metadata database is down, hangs, is slow, or comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import Lease
from intergiro_provider.session.store import VariableStore
from tests.integration.outages.airflow3 import Server, as_task
from tests.integration.outages.proxy import Mode, Proxy
from tests.integration.outages.table import Row
from tests.integration.outages.world import World
from tests.integration.session.services import wait_until

pytestmark = pytest.mark.integration

REFRESH = "/v3/auth/refresh"


def outage(world: World, row: Row, proxy: Proxy, mode: Mode) -> None:
    """A task starts while this is down, and has to fail without asking the bank; another one afterwards."""
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


@pytest.mark.exhaustive
def test_api_hangs(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "hang")


@pytest.mark.exhaustive
def test_api_answers_get_lost(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.api, "lose_answers")


def test_database_down_behind_the_api(task_world: World, row: Row, api_server: Server) -> None:
    outage(task_world, row, api_server.metadata, "refuse")


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
    """Take this down while the bank is about to answer a refresh, for so many seconds from then on."""
    world.bank.fault("latency", path=REFRESH, seconds=0.7)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            wait_until(lambda: world.bank.counters().by_path[f"POST {REFRESH}"] > 0)
            with proxy.being("refuse"):
                time.sleep(seconds)
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
    with down_after_the_refresh(world, proxy, 12.0):
        world.check(row, world.attempt())
    assert world.stored().gen == 1
    # The refresh token that is stored is used up; the one that would have to be is lost with that task.
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
    """Each of them finds what the others insert and replace between its look and its write."""
    world = postgres_world
    failures: list[Exception] = []
    start = threading.Barrier(6)

    def write(number: int) -> None:
        store = VariableStore(Codec("", ""), world.variable)
        try:
            start.wait(10)
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
    api_server.api.delay = 0.9
    try:
        world.check(row, world.attempt())
    finally:
        api_server.api.delay = 0.0
    assert world.bank.counters().by_path[f"POST {REFRESH}"] == 0
    world.succeed()
    world.check_logins(row)
