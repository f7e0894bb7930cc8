# SPDX-License-Identifier: Apache-2.0
"""The search for tokens finds a token in every place."""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
from pathlib import Path

import pytest

from scripts.leaks import database_cells, files, find, postgres_cells, redis_values
from tests.integration.session import services

pytestmark = pytest.mark.integration

# A part of it would change if JSON were decoded and encoded again.
NEEDLE = "eyJ-Nädel/42" + 20 * "abcdefgh"
"""Long and repetitive, so that every compression applies to it."""


def test_in_sqlite(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection, connection:
        connection.execute("create table text_in (id integer, value text)")
        connection.execute("create table bytes_in (id integer, value blob)")
        connection.execute("insert into text_in values (1, ?)", (f'{{"a": "{NEEDLE}"}}',))
        connection.execute("insert into bytes_in values (1, ?)", (f"..{NEEDLE}..".encode(),))
    assert find([NEEDLE], database_cells(tmp_path / "db")) == ["bytes_in.value", "text_in.value"]
    assert find([NEEDLE], database_cells(tmp_path / "db", "bytes_in")) == ["bytes_in.value"]
    assert find(["another"], database_cells(tmp_path / "db")) == []


def test_in_postgresql() -> None:
    with services.postgres() as server, contextlib.closing(server.connect()) as connection:
        cursor = connection.cursor()
        for kind, value in {
            "text": NEEDLE,
            "json": f'{{"a": "{NEEDLE}"}}',
            "jsonb": f'{{"a": ["{NEEDLE}"]}}',
            "bytea": f"..{NEEDLE}..".encode(),
        }.items():
            cursor.execute(f'create table "{kind}_in" (id serial, value {kind})')
            cursor.execute(f'insert into "{kind}_in" (value) values (%s), (null)', (value,))
        found = ["bytea_in.value", "json_in.value", "jsonb_in.value", "text_in.value"]
        assert find([NEEDLE], postgres_cells(connection)) == found
        assert find([NEEDLE], postgres_cells(connection, "json_in")) == ["json_in.value"]
        assert find(["another"], postgres_cells(connection)) == []


def test_in_redis() -> None:
    with services.redis() as server:
        client = server.client()
        client.set("text", f"..{NEEDLE}..")
        client.rpush("list", "something", NEEDLE)
        client.hset("hash", NEEDLE, "something")
        client.sadd("set", NEEDLE)
        client.zadd("zset", {NEEDLE: 1.0})
        client.set("nothing", "something else")
        assert find([NEEDLE], redis_values(client)) == [
            "redis hash",
            "redis list",
            "redis set",
            "redis text",
            "redis zset",
        ]


def test_in_files(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "plain.log").write_text(f"a {NEEDLE} b")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(NEEDLE.encode()))
    (tmp_path / "other.log").write_text("nothing")
    assert find([NEEDLE], files(tmp_path)) == ["logs/plain.log", "packed.gz"]
    assert find([NEEDLE], files(tmp_path, without=[tmp_path / "logs"])) == ["packed.gz"]
