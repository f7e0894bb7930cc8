# SPDX-License-Identifier: Apache-2.0
"""The table equals the bank's list: loads, reloads and late changes, on each engine."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, LoadError
from intergiro_provider.load import open_warehouse
from tests.integration.load.world import Bank, Engine, pull, record

pytestmark = pytest.mark.integration

DAY = ("2026-01-01", "2026-01-02")
WEEK = ("2026-01-01", "2026-01-08")


def counts(rows: int, inserted: int = 0, changed: int = 0, vanished: int = 0, **others: object) -> dict[str, object]:
    unchanged = rows - inserted - changed
    return {
        "rows": rows, "inserted": inserted, "changed": changed, "unchanged": unchanged, "vanished": vanished,
        "replaced": 0, "already": False, **others,
    }  # fmt: skip


FORMATS = [("jsonl", None), ("jsonl", "gzip"), ("jsonl", "zstd"), ("parquet", None), ("parquet", "zstd")]


@pytest.mark.parametrize(("file_format", "compression"), FORMATS)
def test_a_table_follows_the_bank(engine: Engine, tmp_path: Path, file_format: str, compression: str | None) -> None:
    how = {"file_format": file_format, "compression": compression, "part_bytes": 3000}
    bank = Bank(*(record(n) for n in range(40)))
    pull(tmp_path / "1", bank, DAY, **how)
    assert engine.load(tmp_path / "1") == counts(40, inserted=40)
    assert engine.load(tmp_path / "1") == counts(40, inserted=40, already=True)
    pull(tmp_path / "2", bank, DAY, **how)
    assert engine.load(tmp_path / "2") == counts(40)
    changed = [record(n, status="completed") if n % 10 == 0 else record(n) for n in range(42) if n != 7]
    pull(tmp_path / "3", Bank(*changed), DAY, **how)
    assert engine.load(tmp_path / "3") == counts(41, inserted=2, changed=4, vanished=1)
    found = engine.ask("SELECT id, amount, status FROM {t} ORDER BY id")
    assert found == [(each["id"], each["amount"], each["status"]) for each in changed]
    assert engine.ask("SELECT amount_decimal FROM {t}_amounts WHERE id = 't00005'") == [(Decimal("10.05"),)]
    name = "counterparty.name" if engine.is_duck else "counterparty ->> 'name'"
    [(name,)] = engine.ask(f"SELECT {name} FROM {engine.table()} LIMIT 1")
    assert name == 'Åsa "O"\n\\'
    assert engine.ask(f"SELECT count(*), sum(inserted) FROM {engine.table('_intergiro_loads')}") == [(3, 42)]


class TestWhichRows:
    def test_rows_outside_of_the_interval_stay(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(*(record(n, day=n) for n in range(7))), WEEK)
        engine.load(tmp_path / "1")
        pull(tmp_path / "2", Bank(record(3, day=3, status="completed")), ("2026-01-03", "2026-01-05"))
        assert engine.load(tmp_path / "2") == counts(1, changed=1, vanished=1)
        assert [row[0][-1] for row in engine.ask("SELECT id FROM {t} ORDER BY id")] == list("013456")

    def test_an_empty_interval(self, engine: Engine, tmp_path: Path) -> None:
        for day in (0, 1):
            bank = Bank(*(record(10 * day + n, day=day, note="\0") for n in range(5)))
            pull(tmp_path / str(day), bank, (f"2026-01-0{day + 1}", f"2026-01-0{day + 2}"))
            assert engine.load(tmp_path / str(day)) == counts(5, inserted=5, replaced=5)
        moved = Bank(record(20, day=2, note="\0"), record(3, day=2, note="\0"))
        pull(tmp_path / "2", moved, ("2026-01-03", "2026-01-04"))  # has an existing id, on another day
        assert engine.load(tmp_path / "2") == counts(2, inserted=1, changed=1, replaced=2)
        assert engine.ask("SELECT count(*), count(DISTINCT id) FROM {t}") == [(11, 11)]

    def test_an_empty_pull_empties_its_interval(self, engine: Engine, tmp_path: Path) -> None:
        for number, bank in enumerate((Bank(), Bank(record(0), record(1, day=1)), Bank(record(1, day=1)))):
            pull(tmp_path / str(number), bank, DAY)
        assert engine.load(tmp_path / "0") == counts(0)
        assert engine.load(tmp_path / "1") == counts(1, inserted=1)
        assert engine.load(tmp_path / "2") == counts(0, vanished=1)

    @pytest.mark.parametrize("request_", [{"query": {"statuses": ["pending"]}}, {"endpoint": "transactions?a=b"}])
    def test_a_pull_with_a_filter_deletes_nothing(
        self, engine: Engine, tmp_path: Path, request_: dict[str, Any]
    ) -> None:
        pull(tmp_path / "1", Bank(record(0), record(1)), DAY)
        engine.load(tmp_path / "1")
        pull(tmp_path / "2", Bank(record(1)), DAY, **request_)
        assert engine.load(tmp_path / "2") == counts(1)
        pull(tmp_path / "3", Bank(record(1)), DAY, query={"sort_type": "ASC"})
        assert engine.load(tmp_path / "3") == counts(1, vanished=1)

    def test_an_old_pull_after_a_new_one(self, engine: Engine, tmp_path: Path) -> None:
        bank = Bank(record(0), record(1, day=1))
        for name, days in {"1": DAY, "2": ("2026-01-02", "2026-01-03"), "3": ("2026-01-01", "2026-01-03")}.items():
            pull(tmp_path / name, bank, days)
        engine.load(tmp_path / "2")
        assert engine.load(tmp_path / "1") == counts(1, inserted=1)  # beside it
        newest = json.loads((tmp_path / "3/_manifest.json").read_bytes())["pull_id"]
        pull(tmp_path / "4", bank, DAY)
        assert engine.load(tmp_path / "4") == counts(1)
        with pytest.raises(IntergiroValueError, match="newer pull .* of an overlapping interval"):
            engine.load(tmp_path / "3")
        assert engine.ask(f"SELECT count(*) FROM {engine.table('_intergiro_loads')} WHERE pull_id = '{newest}'") == [
            (0,)
        ]

    def test_pulls_of_different_accounts_do_not_hinder_each_other(self, engine: Engine, tmp_path: Path) -> None:
        for n in (0, 1):
            pull(tmp_path / str(n), Bank(record(n)), DAY, query={"account_ids": [f"a{n}"]})
        assert engine.load(tmp_path / "1") == engine.load(tmp_path / "0") == counts(1, inserted=1)

    def test_another_list(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        engine.load(tmp_path / "1")
        pull(tmp_path / "2", Bank(record(0)), DAY, endpoint="cards")
        with pytest.raises(IntergiroValueError, match="holds the list transactions"):
            engine.load(tmp_path / "2")

    def test_a_table_that_was_dropped_is_loaded_again(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        engine.load(tmp_path / "1")
        engine.ask("DROP VIEW {t}_amounts")
        engine.ask("DROP TABLE {t}")
        assert engine.load(tmp_path / "1") == counts(1, inserted=1)


class TestSchema:
    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    @pytest.mark.parametrize(
        ("first", "then", "duck", "postgres"),
        [
            ([1], [2**63], "HUGEINT", "numeric"),
            ([1], [2**130], "JSON", "jsonb"),
            ([1], [0.5], "DOUBLE", "jsonb or double"),
            ([0.5], [1], "DOUBLE", "double precision"),
            ([2**60], [0.5], "JSON", "jsonb"),
            (["a"], [{"b": 1}], "JSON", "jsonb"),
            ([{"b": 1}], ["a"], "JSON", "jsonb"),
            ([True], [1], "JSON", "jsonb"),
            (["2026-01-01T00:00:00Z"], ["never"], "VARCHAR", "text"),
            ([None], [{"b": [{"c": 1}]}], "STRUCT(b STRUCT(c BIGINT)[])", "jsonb"),
            ([{"b": 1}], [{"b": "x", "c": None}], "STRUCT(b JSON)", "jsonb"),
            ([{"b": 1}], [{"b": 1, "d": {"e": "x"}}], "STRUCT(b BIGINT, d STRUCT(e VARCHAR))", "jsonb"),
            ([[1]], [["a", {"b": None}]], "JSON[]", "jsonb"),
        ],
    )
    def test_a_column_widens(
        self, engine: Engine, tmp_path: Path, first: list[Any], then: list[Any], duck: str, postgres: str,
        file_format: str,
    ) -> None:  # fmt: skip
        name = "x_at" if duck == "VARCHAR" else "x"
        values = dict(enumerate([*first, *then]))
        rows = {n: record(n, **{name: value}) for n, value in values.items()}
        pull(tmp_path / "1", Bank(rows[0]), DAY, file_format=file_format)
        engine.load(tmp_path / "1", history=True)
        pull(tmp_path / "2", Bank(*rows.values()), DAY, file_format=file_format)
        loaded = engine.load(tmp_path / "2", history=True)
        assert loaded["inserted"] == 1
        type_ = engine.types()[name]
        assert type_ == (duck if engine.is_duck else "double precision" if "or" in postgres else postgres)
        shown = f"CAST(to_json({name}) AS VARCHAR)" if engine.is_duck else f"to_jsonb({name})::text"
        found = [
            row[0] and json.loads(row[0]) for row in engine.ask(f"SELECT {shown} FROM {engine.table()} ORDER BY id")
        ]
        if name == "x_at":
            assert found[1] == "never"
        else:
            for got, value in zip(found, values.values(), strict=True):
                assert _without_null(got) == _without_null(value)
        pull(tmp_path / "3", Bank(*rows.values()), DAY, file_format=file_format)
        assert engine.load(tmp_path / "3")["changed"] == 0

    def test_a_new_field(self, engine: Engine, tmp_path: Path) -> None:
        pull(tmp_path / "1", Bank(record(0)), DAY)
        new = record(0, fee=5, counterparty={"name": "x", "iban": None, "bank": {"bic": "B"}})
        pull(tmp_path / "2", Bank(new), DAY)
        pull(tmp_path / "3", Bank(record(0)), DAY)
        engine.load(tmp_path / "1")
        if engine.is_duck:
            with pytest.raises(
                IntergiroValueError, match=r"no column for fee, counterparty.bank|counterparty.bank, fee"
            ):
                engine.load(tmp_path / "2", on_new_field="fail")
        before = engine.types()
        assert engine.load(tmp_path / "2", on_new_field="ignore") == counts(1, changed=1)
        assert engine.types() == before
        pull(tmp_path / "2", Bank(new), DAY)
        engine.load(tmp_path / "2", on_new_field="add")
        assert engine.ask("SELECT fee, amount_decimal FROM {t}_amounts") == [(5, Decimal("10.00"))]
        bic = "counterparty.bank.bic" if engine.is_duck else "counterparty -> 'bank' ->> 'bic'"
        assert engine.ask(f"SELECT {bic} FROM {engine.table()}") == [("B",)]
        pull(tmp_path / "4", Bank(record(0)), DAY)
        assert engine.load(tmp_path / "4", on_new_field="fail") == counts(1, changed=1)
        assert engine.ask("SELECT fee FROM {t}") == [(None,)]

    @pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
    def test_characters_that_a_warehouse_cannot_hold(self, engine: Engine, tmp_path: Path, file_format: str) -> None:
        odd = rb'"\ud83d\ude00 \u0000 \\u0000 \\\u0000 \ud83d \\ud83d \ude00x\t"'
        line = json.dumps(record(0)).encode()[:-1] + b', "note": ' + odd + b', "inner": {"s": ' + odd + b"}}"
        pull(tmp_path / "1", Bank(line), DAY, file_format=file_format)
        loaded = engine.load(tmp_path / "1")
        wanted = "😀 \ufffd \\u0000 \\\ufffd \ufffd \\ud83d \ufffdx\t"
        if file_format == "parquet":  # has no lone surrogates: the pull has escaped them
            wanted = "😀 \ufffd \\u0000 \\\ufffd \\ud83d \\ud83d \\ude00x\t"
        nested = '"inner".s' if engine.is_duck else "\"inner\" ->> 's'"
        [(note, found)] = engine.ask(f"SELECT note, {nested} FROM {engine.table()}")
        if engine.is_duck and file_format == "parquet":
            wanted = wanted.replace("\ufffd", "\0")
        assert (note, found) == (wanted, wanted)
        assert loaded["replaced"] == 2 * wanted.count("\ufffd")

    def test_half_a_surrogate_pair_in_an_id(self, engine: Engine, tmp_path: Path) -> None:
        odd = json.dumps(record(0)).encode().replace(b"t00000", rb"t\ud83d")
        manifest = pull(tmp_path / "1", Bank(odd, record(1)), DAY)
        assert manifest.first_id is None
        assert engine.load(tmp_path / "1") == counts(2, inserted=2, replaced=1)
        assert engine.ask("SELECT id FROM {t} ORDER BY id") == [("t00001",), ("t\ufffd",)]

    def test_names_that_need_quoting(self, engine: Engine, tmp_path: Path) -> None:
        odd = {"a b": 1, 'q"q': 2, "100%": 3, "Größe": 4, "order": 5, "%s": 6}
        for name in ("1", "2"):
            pull(tmp_path / name, Bank(record(0, **odd), record(1)), DAY)
        assert engine.load(tmp_path / "1", history=True) == counts(2, inserted=2)
        assert engine.load(tmp_path / "2", history=True) == counts(2)
        assert engine.ask('SELECT "a b", "q""q", "100%", "Größe", "order", "%s" FROM {t} ORDER BY id')[0] == (
            1,
            2,
            3,
            4,
            5,
            6,
        )


def test_currencies(engine: Engine, tmp_path: Path) -> None:
    pull(tmp_path / "1", Bank(*(record(n, currency=code) for n, code in enumerate(("EUR", "JPY", "KWD", "XAU")))), DAY)
    engine.load(tmp_path / "1")
    found = dict(engine.ask("SELECT currency, amount_decimal FROM {t}_amounts"))
    assert found == {"EUR": Decimal("10.00"), "JPY": Decimal(1001), "KWD": Decimal("1.002"), "XAU": None}
    exponents = dict(engine.ask(f"SELECT currency, exponent FROM {engine.table('intergiro_currencies')}"))
    assert len(exponents) > 160
    assert (exponents["SEK"], exponents["ISK"], exponents["TND"], exponents["CLF"]) == (2, 0, 3, 4)


def test_without_the_package_of_currencies(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(tmp_path / "1", Bank(record(0)), DAY)
    monkeypatch.setitem(sys.modules, "iso4217", None)
    with pytest.raises(IntergiroValueError, match=r"needs the package iso4217.*\[duckdb\]"):
        engine.load(tmp_path / "1")


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(inner) for name, inner in value.items() if inner is not None}
    return [*map(_without_null, value)] if isinstance(value, list) else value


def test_history(engine: Engine, tmp_path: Path) -> None:
    states = [["pending", "pending"], ["pending", "completed"], ["completed"], ["completed"]]
    pulled = []
    for number, statuses in enumerate(states):
        bank = Bank(*(record(n, status=status) for n, status in enumerate(statuses)))
        pulled.append(pull(tmp_path / str(number), bank, DAY).pull_id)
        engine.load(tmp_path / str(number), history=number > 0)
    found = engine.ask("SELECT id, status, _operation, _pull_id FROM {t}_history ORDER BY id, _valid_from")
    assert found == [
        ("t00000", "pending", "insert", pulled[0]),
        ("t00000", "completed", "update", pulled[2]),
        ("t00001", "pending", "insert", pulled[0]),
        ("t00001", "completed", "update", pulled[1]),
        ("t00001", "completed", "delete", pulled[2]),
    ]
    [(moment,)] = engine.ask("SELECT max(_valid_from) FROM {t}_history")
    assert f"{moment:%Y%m%dT%H%M%S%f}" == pulled[2].partition("-")[0]


SECRET = "Åsa Secret"


def test_what_is_wrong_with_a_file_loads_nothing_and_names_no_value(engine: Engine, tmp_path: Path) -> None:
    bank = Bank(*(record(n, reference=SECRET) for n in range(50)))
    for number, spoil in enumerate((_flip, _cut, _other_type)):
        path = tmp_path / str(number)
        manifest = pull(path, bank, DAY)
        part = path / manifest.parts[0].path
        part.write_bytes(spoil(part.read_bytes()))
        with pytest.raises(IntergiroError) as raised:
            engine.load(path)
        shown = "".join(traceback.format_exception(raised.value))
        assert SECRET not in shown
        assert "1049" not in shown
    with pytest.raises(Exception, match=r"(?i)does not exist"):
        engine.ask("SELECT count(*) FROM {t}")


def _flip(stored: bytes) -> bytes:
    return stored.replace(b"1049", b"1048")


def _cut(stored: bytes) -> bytes:
    return stored[: stored.rindex(b"{")]


def _other_type(stored: bytes) -> bytes:
    return stored.replace(b"1049", b'"x"')


def test_two_loads_at_once(engine: Engine, tmp_path: Path) -> None:
    pull(tmp_path / "1", Bank(*(record(n) for n in range(200))), DAY)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        loads = [pool.submit(engine.load, tmp_path / "1", lock_timeout=600.0) for _ in range(3)]
        results = [load.result() for load in loads]
    assert sorted(result["already"] for result in results) == [False, True, True]
    assert engine.ask("SELECT count(*) FROM {t}") == [(200,)]


def test_a_lock_that_stays_held(engine: Engine, tmp_path: Path) -> None:
    pull(tmp_path / "1", Bank(record(0)), DAY)
    with ExitStack() as stack:
        holder = open_warehouse(engine.table(), **engine.where)
        if engine.is_duck:
            code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
            process = subprocess.Popen(
                [sys.executable, "-c", code, engine.where["database"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(process.communicate)
            assert process.stdout is not None
            process.stdout.readline()
        else:
            stack.enter_context(holder.session())
        with pytest.raises(LoadError, match=r"lock_timeout|waiting for another load of the table"):
            engine.load(tmp_path / "1", lock_timeout=0.3)
    assert engine.load(tmp_path / "1") == counts(1, inserted=1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"table": "Transactions"}, "lower-case"),
        ({"table": "a.b.c"}, "lower-case"),
        ({"table": "t", "database": "relative.duckdb"}, "absolute path"),
        ({"table": "t", "database": "/x", "on_new_field": "drop"}, "one of 'add', 'ignore', 'fail'"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(IntergiroValueError, match=match):
        open_warehouse(**arguments)


def test_a_schema_named_like_the_duckdb_file(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    pull(tmp_path / "1", Bank(record(0)), DAY)
    engine = Engine("duckdb", {"database": str(tmp_path / "lake.duckdb")}, "lake")
    with pytest.raises(IntergiroValueError, match=r"the schema in lake\.transactions has the name of the DuckDB file"):
        engine.load(tmp_path / "1")
