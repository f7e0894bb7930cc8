# SPDX-License-Identifier: Apache-2.0
"""The distributed lock that a connection names, and the error if it cannot be used."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError, StoreUnavailable
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.session.distributed_lock import EXTENSIONS, DistributedLock
from intergiro_provider.session.locks import open_lock

NAME = "intergiro_session_x"
SECRET = "n0t-for-logs"
Connect = Callable[..., DistributedLock]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Return the lock of a connection with these fields."""

    def make(name: str = NAME, **fields: Any) -> DistributedLock:
        monkeypatch.setenv("AIRFLOW_CONN_LOCK", json.dumps({"host": "db.example", "password": SECRET, **fields}))
        return open_lock("lock", name, IntergiroHook.get_connection)

    return make


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_two_locks_are_the_same_by_service_and_name(connect: Connect, kind: str) -> None:
    port = {"postgres": 5432, "redis": 6379}[kind]
    same = [
        connect(conn_type=kind),
        connect(conn_type=kind, port=port),
        connect(conn_type=kind, host="DB.example", password="another", extra={"ssl": True} if kind == "redis" else {}),
    ]
    other = [
        connect("another", conn_type=kind),
        connect(conn_type=kind, port=port + 1),
        connect(conn_type=kind, host="db2.example"),
        connect(conn_type="redis" if kind == "postgres" else "postgres"),
        connect(conn_type=kind, schema="lock", extra={"db": 1} if kind == "redis" else {}),
    ]

    assert len({lock.fingerprint for lock in same}) == 1
    assert len({lock.fingerprint for lock in (same[0], *other)}) == 6


def test_what_the_extra_of_a_postgres_connection_says_counts(connect: Connect) -> None:
    plain = connect(conn_type="postgres", schema="locks")
    moved = connect(conn_type="postgres", schema="else", extra={"dbname": "locks", "sslmode": "require"})

    assert plain.fingerprint == moved.fingerprint
    assert plain.fingerprint != connect(conn_type="postgres", schema="else").fingerprint


def test_a_socket_is_another_service_on_each_machine(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    here = connect(conn_type="postgres", host="/run/postgresql").fingerprint
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")

    assert connect(conn_type="postgres", host="/run/postgresql").fingerprint != here


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"conn_type": "mysql"}, "type 'mysql'.*postgres or redis"),
        ({"conn_type": "intergiro"}, "type 'intergiro'"),
        ({"conn_type": "redis", "host": ""}, "host"),
        ({"conn_type": "postgres", "host": None}, "host"),
        ({"conn_type": "redis", "extra": {"cluster": True}}, "cluster"),
    ],
)
def test_a_connection_that_can_give_no_lock_is_final(connect: Connect, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(IntergiroValueError, match=says) as caught:
        connect(**fields)
    assert "'lock'" in str(caught.value)


def test_a_connection_that_is_not_there_may_be_there_later(airflow_db: Any) -> None:
    with pytest.raises(StoreUnavailable, match="'nowhere'.*lock_conn_id"):
        open_lock("nowhere", NAME, IntergiroHook.get_connection)


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_missing_driver_is_named_with_the_remedy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.delitem(sys.modules, f"intergiro_provider.session.{kind}_lock", raising=False)
    monkeypatch.setitem(
        sys.modules, {"postgres": "airflow.providers.postgres.hooks.postgres", "redis": "redis"}[kind], None
    )

    with pytest.raises(StoreUnavailable, match=rf"airflow-provider-intergiro\[{kind}\]"):
        connect(conn_type=kind)


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_service_that_is_down_is_named_without_a_secret(
    connect: Connect, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = closed_port()
    lock = connect(conn_type=kind, host="127.0.0.1", port=port)

    with pytest.raises(StoreUnavailable, match="`lock_conn_id` 'lock'.*refused") as caught:
        lock.try_acquire()
    assert f"{kind} at 127.0.0.1:{port}" in str(caught.value)
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value) + repr(lock) + caplog.text
    lock.release()
    with pytest.raises(StoreUnavailable, match="was lost"):
        lock.check()


class Fake(DistributedLock):
    """A lock whose service responds as the test requires."""

    drivers = ("tests",)

    def __init__(self, says: list[bool | Exception]) -> None:
        super().__init__("lock", ("fake", "host", "1", "db"), NAME, SECRET, ttl=0.6)
        self.says = says
        self.asked = self.released = 0

    def _acquire(self) -> bool:
        return True

    def _confirm(self) -> bool:
        self.asked += 1
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def _release(self) -> None:
        self.released += 1
        raise OSError("nobody there")


class DriverError(Exception):
    pass


def test_the_service_hears_of_a_waiting_holder_now_and_then() -> None:
    lock = Fake([True, OSError(), False])
    assert lock.try_acquire()
    began = time.monotonic()
    while lock.asked < 3 and time.monotonic() < began + 300:
        lock.keep()
        time.sleep(0.01)

    assert lock.asked == 3
    assert time.monotonic() - began >= 3 * lock.ttl / EXTENSIONS
    lock.release()


@pytest.mark.parametrize(
    ("error", "quoted"),
    [
        (DriverError("no route to host\nand more"), "(DriverError: no route to host)"),
        (DriverError(f"wrong password {SECRET}"), "(DriverError)"),
        (ValueError("whatever it holds"), "(ValueError)"),
    ],
)
def test_only_the_drivers_own_words_are_quoted_and_never_the_password(error: Exception, quoted: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        Fake([error]).check()
    assert quoted in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_forked_child_neither_releases_nor_confirms_its_parents_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Fake([True])
    assert lock.try_acquire()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        lock.release()
        with pytest.raises(StoreUnavailable, match="was lost"):
            lock.check()
    assert (lock.asked, lock.released) == (0, 0)
    lock.release()
    assert lock.released == 1
