# SPDX-License-Identifier: Apache-2.0
"""If a pull into Parquet fails, the previous result stays, and no other file is left."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from intergiro_provider.exceptions import BankUnavailable, IntergiroError
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest, Part
from intergiro_provider.pull.parquet import STAGED_SUFFIX, Parquet
from intergiro_provider.pull.pull import Pull, PullRequest, PullStopped
from intergiro_provider.pull.rows import rewritten
from intergiro_provider.pull.schema import Kind, ListOf, StructOf
from intergiro_provider.pull.target import Target
from tests.unit.pull.attempts import RECORDS, State, failing, run
from tests.unit.pull.columns import expected_rows, read
from tests.unit.pull.lists import ListInMemory, pages_of, record
from tests.unit.pull.pulling import FORMER, NEW, Store, store
from tests.unit.pull.pulling import pull as pull_lines
from tests.unit.pull.stores import Failing, Hooked, ObjectStore, names

__all__ = ["store"]  # a fixture


def pull(fs: Any, root: str, bank: Any, **request: Any) -> Manifest:
    """Pull into Parquet, with rows that can be compared with JSON."""
    return pull_lines(fs, root, bank, file_format="parquet", parquet_timestamps="raw", **request)


def check(store: Store, *banks: ListInMemory) -> None:
    """Check that the directory contains the complete result of one of these lists, and no other file."""
    found = read(*store).to_pylist()
    assert any(found == [json.loads(r) for r in bank.records] for bank in banks)


class TestFailure:
    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done but its answer lost"])
    def test_of_each_operation_of_the_file_system(
        self, store: Store, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.0)
        monkeypatch.setattr(Failing, "OPERATIONS", Failing.OPERATIONS | {"read"})
        fs, root = store
        counting = Failing(fs, None)
        for _ in range(2):
            pull(counting, root, NEW)
        failures = 0
        for number in range(counting.count):
            pull(fs, root, FORMER)
            broken = Failing(fs, number, after=after)
            try:
                pull(broken, root, NEW)
            except (OSError, IntergiroError):
                failures += 1
            if broken.count <= number:
                break
            check(store, FORMER, NEW)
        else:
            pytest.fail("the loop never reached the end of a pull")
        assert failures > 20

    @pytest.mark.parametrize("operation", ["read", "write"])
    def test_being_stopped_while_parquet_is_written(self, store: Store, operation: str) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []
        pieces = {"read": ("open", STAGED_SUFFIX + ".tmp rb"), "write": ("open", ".parquet.tmp wb")}
        hooked = Hooked(fs, pieces[operation], lambda: running[0].stop())
        request = PullRequest(endpoint="transactions", query={"limit": 5}, file_format="parquet")
        running.append(Pull(request, pages_of(NEW), Target(Directory(hooked, root))))
        with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
            running[0].run()
        check(store, FORMER)

    def test_a_signal_while_parquet_is_written(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)

        def interrupt() -> None:
            raise PullStopped

        with pytest.raises(PullStopped):
            pull(Hooked(fs, ("open", ".parquet.tmp wb"), interrupt), root, NEW)
        check(store, FORMER)

    def test_what_cannot_be_written_is_not_quoted(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        # A schema that does not fit, as only a bug could create.
        monkeypatch.setattr("intergiro_provider.pull.parquet.finalize", lambda *_: StructOf({"id": Kind.INT64}))
        with pytest.raises(IntergiroError, match="report this as a bug") as caught:
            pull(fs, root, ListInMemory([record(1, name="Åsa")]))
        assert "r00001" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        monkeypatch.undo()
        assert read(fs, root).num_rows == 7

    def test_a_record_that_is_lost_on_the_way_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from intergiro_provider.pull import parquet

        blocks = parquet._blocks
        monkeypatch.setattr(parquet, "_blocks", lambda *a: (b[: b.rfind(b"\n", 0, -1) + 1] for b in blocks(*a)))
        with pytest.raises(IntergiroError, match="lost or repeated records"):
            pull(ObjectStore(), "/lake", ListInMemory([record(n) for n in range(3)]), part_bytes=1 << 20)


class TestResuming:
    """Parts that an earlier attempt has staged, whose types are unknown."""

    def test_parts_of_an_earlier_attempt(self, store: Store) -> None:
        fs, root = store
        target = Target(Directory(fs, root))
        target.begin()
        odd = rb'"\ud83d"'  # half a surrogate pair
        pages = [
            [[b'{"a":1,"t":1}', b'{"a":2,"t":"x"}'], [b'{"t":' + odd + b"}"]],
            [[b'{"a":1.5,"late":null}']],
            [[b'{"late":"x","o":{}}']],
        ]
        parts = []
        for number, part_pages in enumerate(pages):
            writer = Parquet(None, timestamps=True)  # each in a new process
            name = f"part-{number:05d}-{target.pull_id}{STAGED_SUFFIX}"
            part = writer.open(target.stage(name))
            for records in part_pages:
                part.write([msgspec.Raw(r) for r in records])
            stored = part.finish()
            parts.append(Part(path=name, rows=stored.rows, bytes=stored.bytes, sha256=stored.sha256))
        checks: list[int] = []
        [made] = Parquet(None, timestamps=True).assemble(parts, target, 1 << 20, lambda: checks.append(1))
        assert made.rows == 5
        assert len(checks) >= 4, "it can be stopped while it looks through what is there"
        with target.reopen(made.path) as file:
            assert pa.parquet.read_table(pa.BufferReader(file.read())).to_pylist() == [
                {"a": 1.0, "t": "1", "late": None, "o": None},
                {"a": 2.0, "t": '"x"', "late": None, "o": None},
                {"a": None, "t": r'"\\ud83d"', "late": None, "o": None},
                {"a": 1.5, "t": None, "late": None, "o": None},
                {"a": None, "t": None, "late": "x", "o": "{}"},
            ]
        target.abandon()


class TestRewriting:
    def test_only_what_has_to_be(self) -> None:
        columns = {
            "t": Kind.JSON,
            "m_at": Kind.TIMESTAMP,
            "l": ListOf(StructOf({"t": Kind.JSON, "s": Kind.STRING})),
            "n": Kind.DOUBLE,
        }
        line = (
            rb'{"n":10.4500,"t" : {"a" : "\u00e5\n"},"t":[ 1.0 ],"m_at":"2026-01-01 00:00:00+0200",'
            rb'"l":[null,{"t":null,"s":"\u00e5"}]}'
        )
        assert rewritten(line + b"\n{}\n", columns) == (
            b'{"n":10.4500,"t":"[ 1.0 ]","m_at":"2026-01-01T00:00:00+02:00","l":[null,{"t":null,"s":"\\u00e5"}]}\n{}\n'
        )


class TestAttempts:
    """With the state of the task, the next attempt uses the parts that the last one staged."""

    def test_after_the_bank_failed(self, store: Store) -> None:
        records = [record(n, **({"early": n} if n < 20 else {"late": str(n)})) for n in range(100)]
        state = State()
        request = {"file_format": "parquet", "parquet_timestamps": "raw"}
        with pytest.raises(BankUnavailable):
            run(*store, failing(20, records=records), state, **request)
        bank = ListInMemory(records)
        run(*store, bank, state, **request)
        assert len(bank.queries) == 1
        table = read(*store)
        assert table.to_pylist() == expected_rows([json.loads(r) for r in records], table.schema)
        assert table.schema.names[-2:] == ["early", "late"]

    @pytest.mark.parametrize("where", [("open", ".parquet.tmp wb"), ("mv", ".parquet"), ("mv", "_manifest")])
    def test_after_writing_parquet_failed(self, store: Store, where: tuple[str, str]) -> None:
        fs, root = store
        if where[1] == "_manifest" and not Directory(fs, root).local:
            pytest.skip("an object store gets its manifest by a PUT, which is tried again")

        def full() -> None:
            raise OSError(28, "No space left on device")

        state = State()
        with pytest.raises(OSError, match="No space left"):
            run(Hooked(fs, where, full), root, ListInMemory(RECORDS), state, file_format="parquet")
        assert not [name for name in names(fs, root) if ".parquet" in name]
        bank = ListInMemory(RECORDS)
        run(fs, root, bank, state, file_format="parquet")
        assert len(bank.queries) <= 1
        assert read(fs, root).column("id").to_pylist() == [json.loads(r)["id"] for r in RECORDS]
