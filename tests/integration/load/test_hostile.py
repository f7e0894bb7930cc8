# SPDX-License-Identifier: Apache-2.0
"""Loads under conditions that a user did not plan: odd directories, names, settings of the server, edited manifests."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, LoadError
from intergiro_provider.load import open_warehouse
from intergiro_provider.load.source import Source
from intergiro_provider.load.steps import load
from intergiro_provider.pull.directory import Directory
from scripts.services import wait_until
from tests.integration.load.test_load import DAY, counts
from tests.integration.load.world import Bank, Engine, pull, record

pytestmark = pytest.mark.integration

FORMATS = pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
LONG = "12345678901234567890.123"
HOUR = ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z")


@FORMATS
@pytest.mark.parametrize("folder", ["currency=SEK", "account_id=007", "amount=7", "a[b]c"])
def test_a_directory_does_not_change_values(engine: Engine, tmp_path: Path, file_format: str, folder: str) -> None:
    pull(tmp_path / folder, Bank(record(0)), DAY, file_format=file_format)
    engine.load(tmp_path / folder)
    assert engine.ask("SELECT currency, account_id, amount FROM {t}") == [("EUR", "a0", 1000)]


@pytest.mark.parametrize(
    ("value", "then"),
    [
        ({"n": LONG}, {"n": "1.5", "m": 1}),
        ({"n": LONG, "l": [LONG]}, "x"),
        ([{"n": LONG}], [{"n": LONG, "m": {}}, {"m": {"k": 1}}]),
    ],
)
@FORMATS
def test_long_numbers_survive_a_wider_column(
    engine: Engine, tmp_path: Path, file_format: str, value: Any, then: Any
) -> None:
    for number, each in enumerate((value, then)):
        line = json.dumps(record(number, day=number, x=each)).replace(f'"{LONG}"', LONG).encode()
        days = (f"2026-01-0{number + 1}", f"2026-01-0{number + 2}")
        pull(tmp_path / str(number), Bank(line), days, file_format=file_format)
        engine.load(tmp_path / str(number), history=True)
    text = "CAST(x AS VARCHAR)" if engine.is_duck else "x::text"
    for table in ("transactions", "transactions_history"):
        assert LONG in engine.ask(f"SELECT {text} FROM {engine.table(table)} WHERE id = 't00000'")[0][0]


@pytest.mark.parametrize(
    ("full", "empty"),
    [(["x"], []), ({"a": 1, "b": {"c": 1}}, {"a": None, "b": {"c": None}}), ([{"a": 1}], [{"a": None}])],
)
@FORMATS
def test_what_has_no_value_does_not_depend_on_the_rest_of_the_pull(
    engine: Engine, tmp_path: Path, file_format: str, full: Any, empty: Any
) -> None:
    pull(tmp_path / "1", Bank(record(0, x=full), record(1, x=empty)), DAY, file_format=file_format)
    engine.load(tmp_path / "1")
    pull(tmp_path / "2", Bank(record(1, x=empty)), HOUR, file_format=file_format)
    assert engine.load(tmp_path / "2") == counts(1)


def test_an_object_without_fields_stays_an_object(engine: Engine, tmp_path: Path) -> None:
    if engine.is_duck:
        pytest.skip("has no structure without fields")
    pull(tmp_path / "1", Bank(record(0, x={})), DAY, file_format="parquet")
    engine.load(tmp_path / "1")
    assert engine.ask("SELECT jsonb_typeof(x) FROM {t}") == [("object",)]


@pytest.mark.parametrize("name", ["x" * 64, "ctid", "Amount", "", "a\0b", "_pull_id"])
def test_a_name_that_cannot_be_a_column(engine: Engine, tmp_path: Path, name: str) -> None:
    fits = ("Amount",) if not engine.is_duck else ("x" * 64, "ctid")
    for number in (1, 2):
        pull(tmp_path / str(number), Bank(record(0, **{name: 5})), DAY)
    if name in fits:
        engine.load(tmp_path / "1")
    else:
        with pytest.raises(IntergiroValueError, match="cannot have a column for the field"):
            engine.load(tmp_path / "1")
        assert engine.load(tmp_path / "1", on_new_field="ignore")["inserted"] == 1
    assert engine.load(tmp_path / "2", on_new_field="add" if name in fits else "ignore")["changed"] == 0


def _twice(manifest: dict[str, Any]) -> None:
    manifest["parts"] *= 2
    manifest["rows"] *= 2


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_twice, "twice"),
        (lambda manifest: manifest["parts"].pop(), "was changed after the pull"),
        (lambda manifest: manifest.update(created_to=None), "was changed after the pull"),
        (lambda manifest: manifest.update(created_from="'"), "was changed after the pull"),
        (lambda manifest: manifest.update(pull_id="x"), "was changed after the pull"),
        (lambda manifest: manifest["parts"][0].update(path="part.jsonl"), r"part.jsonl in .* differs.*\(missing\)"),
    ],
)
@FORMATS
def test_an_edited_manifest(
    engine: Engine, tmp_path: Path, file_format: str, edit: Callable[[Any], object], match: str
) -> None:
    for number in (1, 2):
        pull(tmp_path / str(number), Bank(record(0), record(1)), DAY, file_format=file_format)
    engine.load(tmp_path / "1")
    path = tmp_path / "2" / "_manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(IntergiroError, match=match):
        engine.load(tmp_path / "2")
    assert engine.ask("SELECT count(*) FROM {t}") == [(2,)]


def test_a_record_without_an_id(engine: Engine, tmp_path: Path) -> None:
    class Unchecked(Bank):
        def __call__(self, query: dict[str, Any]) -> bytes:
            return b'{"data":[' + b",".join(self.records) + b'],"has_more":false}'

    pull(tmp_path / "1", Unchecked(record(0) | {"id": None}, record(1)))
    with pytest.raises(LoadError, match=r"1 record\(s\) without an id"):
        engine.load(tmp_path / "1")


def test_a_load_continues_a_history(engine: Engine, tmp_path: Path) -> None:
    for number, (history, status) in enumerate([(True, "a"), (False, "b"), (True, "b")]):
        pull(tmp_path / str(number), Bank(record(0, status=status)), DAY)
        engine.load(tmp_path / str(number), history=history)
    assert engine.ask("SELECT status FROM {t}_history ORDER BY _valid_from") == [("a",), ("b",)]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock/x.duckdb").write_text("no database" * 1000)
    pull(tmp_path / "1", Bank(record(0)), DAY)
    began = time.monotonic()
    with pytest.raises(LoadError, match="connecting failed: IOException: .*not a valid DuckDB database"):
        Engine("duckdb", {"database": str(tmp_path / "lock/x.duckdb")}).load(tmp_path / "1", lock_timeout=600.0)
    assert time.monotonic() - began < 300


class TestPostgres:
    @pytest.fixture(autouse=True)
    def postgres(self, engine: Engine) -> None:
        if engine.is_duck:
            pytest.skip("PostgreSQL only")

    def connect_with(self, **changes: Any) -> None:
        name = "AIRFLOW_CONN_LOAD_WAREHOUSE"
        os.environ[name] = json.dumps(json.loads(os.environ[name]) | changes)

    @pytest.mark.parametrize(
        "extra",
        [
            {"cursor": "dictcursor"},
            {"options": "-c client_encoding=latin1"},
            {"options": "-c datestyle=German"},
            {"options": "-c standard_conforming_strings=off"},
            {"options": "-c default_transaction_isolation=serializable"},
        ],
    )
    def test_settings_of_the_connection_change_nothing(
        self, engine: Engine, tmp_path: Path, extra: dict[str, str]
    ) -> None:
        self.connect_with(extra=extra)
        for number in (1, 2):
            pull(tmp_path / str(number), Bank(record(0, note='Åsa "€" \\')), DAY)
            assert engine.load(tmp_path / str(number)) == counts(1, inserted=number % 2)
        self.connect_with(extra={})
        assert engine.ask("SELECT note FROM {t}") == [('Åsa "€" \\',)]

    def test_a_table_without_its_key(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        engine.load(tmp_path / "1")
        engine.ask("ALTER TABLE {t} DROP CONSTRAINT transactions_pkey")
        pull(tmp_path / "2", Bank(record(0, day=2)), ("2026-01-03", "2026-01-04"))
        assert engine.load(tmp_path / "2") == counts(1, changed=1)
        assert engine.ask("SELECT count(*) FROM {t}") == [(1,)]

    def test_both_spellings_of_a_table_have_one_lock(self, engine: Engine) -> None:
        self.connect_with(extra={"options": f"-c search_path={engine.schema}"})
        with open_warehouse("transactions", **engine.where).session():  # type: ignore[arg-type]
            other = open_warehouse(engine.table(), **engine.where, lock_timeout=0.3)  # type: ignore[arg-type]
            with pytest.raises(Exception, match="lock timeout"), other.session():
                pass

    def test_an_isolation_level_does_not_hide_the_load_before(self, engine: Engine) -> None:
        self.connect_with(extra={"options": "-c default_transaction_isolation=serializable"})
        warehouse: Any = open_warehouse(engine.table(), **engine.where)  # type: ignore[arg-type]
        with warehouse.session():
            assert warehouse.execute("SHOW transaction_isolation").fetchone() == ("read committed",)

    def test_a_view_that_depends_on_a_column(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0, note="a")), DAY)
        engine.load(tmp_path / "1")
        engine.ask(f"CREATE VIEW {engine.table('mine')} AS SELECT note FROM {engine.table()}")
        pull(tmp_path / "2", Bank(record(0, note=5)), DAY)
        with pytest.raises(LoadError, match=r"SQLSTATE 0A000: cannot alter type .* view .*mine depends on column"):
            engine.load(tmp_path / "2")

    def test_why_it_does_not_connect(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        port = json.loads(os.environ["AIRFLOW_CONN_LOAD_WAREHOUSE"])["port"]
        self.connect_with(port=1)
        with pytest.raises(LoadError, match="connecting failed: OperationalError: .*refused"):
            engine.load(tmp_path / "1")
        self.connect_with(port=port)

    def test_a_connection_that_is_lost_at_the_commit(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        warehouse: Any = open_warehouse(engine.table(), **engine.where)  # type: ignore[arg-type]
        connect = warehouse._hook.get_conn

        class Lost:
            def __init__(self) -> None:
                object.__setattr__(self, "_inner", connect())

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

            def __setattr__(self, name: str, value: Any) -> None:
                setattr(self._inner, name, value)

            def commit(self) -> None:
                self._inner.commit()
                pid = self._inner.info.backend_pid
                engine.ask(f"SELECT pg_terminate_backend({pid})")
                wait_until(lambda: not engine.ask(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))
                self._inner.cursor().execute("SELECT 1")

        warehouse._hook.get_conn = Lost
        with pytest.raises(LoadError, match=r"committing failed: .* not known whether the load was committed"):
            load(warehouse, Source(Directory(LocalFileSystem(), str(tmp_path / "1"))))
        assert engine.load(tmp_path / "1") == counts(1, inserted=1, already=True)
