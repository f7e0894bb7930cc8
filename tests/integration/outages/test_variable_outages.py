# SPDX-License-Identifier: Apache-2.0
"""The session's Variables are deleted, garbled, written by people, restored, encrypted by others, or shadowed."""

from __future__ import annotations

import json

import pytest
from cryptography.fernet import Fernet

from intergiro_provider.session.documents import TokenPair
from tests.integration.outages.airflow3 import Server
from tests.integration.outages.conftest import AIRFLOW_3
from tests.integration.outages.table import Row
from tests.integration.outages.world import World

pytestmark = pytest.mark.integration

SLOTS = ("session", "lease", "logins")


@pytest.fixture(params=["database", "api"] if AIRFLOW_3 else ["database"])
def any_world(request: pytest.FixtureRequest) -> World:
    """Either way to the Variables."""
    world: World = request.getfixturevalue("task_world" if request.param == "api" else "world")
    return world


def pair(world: World) -> tuple[str, str]:
    """An access and a refresh token, from a login that a person has made."""
    import requests

    answer = requests.post(f"{world.bank.url}/v3/auth/login", json={"api_key": world.bank.api_key}, timeout=5).json()
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
    """Have the session as a component with another Fernet key writes it."""
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
