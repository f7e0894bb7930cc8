# SPDX-License-Identifier: Apache-2.0
"""The places that store sessions, and Dagster's API for them, with the oldest and the newest supported Dagster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from dagster_intergiro import internals
from dagster_intergiro.cells import Cells, open_cells
from intergiro_provider.exceptions import IntergiroValueError, StoreUnavailable
from scripts.services import wait_until

Opened = Callable[[], Cells]


@pytest.fixture(params=["sqlite", "postgres instance", "file", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Return a function that opens the same storage again, as another process would."""
    with ExitStack() as stack:
        if request.param == "file":
            yield lambda: open_cells((tmp_path / "sessions").as_uri(), None)
        elif request.param == "postgres":
            url = request.getfixturevalue("database").replace("+psycopg2", "")
            yield lambda: open_cells(url, None)
        else:
            home = tmp_path / "home"
            home.mkdir()
            storage = ""
            if "postgres" in request.param:
                storage = f"storage: {{postgres: {{postgres_url: '{request.getfixturevalue('database')}'}}}}"
            (home / "dagster.yaml").write_text(storage)
            monkeypatch.setenv("DAGSTER_HOME", str(home))
            yield lambda: open_cells(None, stack.enter_context(DagsterInstance.get()))


def test_texts_are_kept_replaced_and_deleted(opened: Opened) -> None:
    one, other = opened(), opened()
    assert one.get("a") is None
    one.set("a", "1")
    other.set("a", "2")
    other.set("b", "3")
    assert (one.get("a"), one.get("b")) == ("2", "3")
    one.delete("a")
    one.delete("never there")
    assert other.get("a") is None


def test_one_holds_the_lock(opened: Opened) -> None:
    first, second, third = opened().lock("x"), opened().lock("x"), opened().lock("y")
    assert (first.try_acquire(), second.try_acquire(), third.try_acquire()) == (True, False, True)
    first.check()
    assert first.fingerprint == second.fingerprint != third.fingerprint
    first.release()
    assert second.try_acquire()
    with pytest.raises(StoreUnavailable):
        first.check()
    second.release()
    third.release()


def test_a_fork_does_not_hold_the_lock_and_a_killed_holder_lets_it_go(opened: Opened) -> None:
    lock = opened().lock("x")
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        opened().lock("x").try_acquire()
        held.set()
        signal.pause()

    killed = context.Process(target=hold)
    killed.start()
    assert held.wait(120)
    assert not lock.try_acquire()
    os.kill(killed.pid or 0, signal.SIGKILL)
    killed.join()
    wait_until(lock.try_acquire)
    child = context.Process(target=signal.pause)
    child.start()
    lock.release()
    assert opened().lock("x").try_acquire()
    child.kill()
    child.join()


def test_files_are_this_users_alone(tmp_path: Path) -> None:
    cells = open_cells((tmp_path / "a b").as_uri(), None)
    cells.set("x", "secret")
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "a b").iterdir()} == {0}
    assert (tmp_path / "a b").stat().st_mode & 0o077 == 0


def test_an_ephemeral_instance_keeps_sessions_in_the_users_state(state_home: Path) -> None:
    with DagsterInstance.ephemeral() as instance:
        open_cells(None, instance).set("x", "1")
    open_cells(None, None).set("y", "1")
    assert {path.name for path in (state_home / "dagster-intergiro").glob("*.json")} == {"x.json", "y.json"}


def test_the_temporary_instance_of_dagster_dev_counts_as_ephemeral(tmp_path: Path, state_home: Path) -> None:
    home = tmp_path / f"{internals.TEMPORARY_HOME}1"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        assert internals.is_temporary(instance)


class ReturnsErrors:
    """The key-value storage of Dagster+, which returns an error where others raise it."""

    def get_cursor_values(self, keys: set[str]) -> Any:
        return NotImplementedError("unavailable")

    def set_cursor_values(self, pairs: Any) -> Any:
        return NotImplementedError("unavailable")


def test_an_instance_without_key_values_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with DagsterInstance.local_temp(str(tmp_path)) as instance, monkeypatch.context() as patch:
        patch.setattr(instance, "_run_storage", ReturnsErrors())
        with pytest.raises(IntergiroValueError, match="Set `session_store`"):
            open_cells(None, instance)


def test_a_lock_file_that_cannot_be_opened_gives_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_cells((tmp_path / "file" / "x").as_uri(), None).lock("x").try_acquire()
