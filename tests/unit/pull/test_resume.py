# SPDX-License-Identifier: Apache-2.0
"""An attempt resumes from the checkpoint of a failed one. The result is the same as without the failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroNotFound,
    IntergiroResponseError,
    IntergiroValidationError,
    IntergiroValueError,
    UnreadableResponse,
)
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.checkpointer import STATE_KEY
from intergiro_provider.pull.names import start_of
from tests.unit.pull.attempts import RECORDS, State, failing, new_attempt, run
from tests.unit.pull.lists import ListInMemory, record
from tests.unit.pull.pulling import FORMER, Store, lines, pull, store
from tests.unit.pull.stores import BrokenAt, Failing, ObjectStore, broken_commit, check_only_result, check_result, names
from tests.unit.pull.timed import BEGIN, TimedList, stamp

__all__ = ["store"]  # a fixture


class TestAfterAFailure:
    def test_the_next_attempt_pulls_the_rest(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        state = State()
        with pytest.raises(BankUnavailable):
            run(fs, root, failing(20), state)
        assert check_result(fs, root)[1] == lines(FORMER)
        assert [n for n in names(fs, root) if not n.startswith("_")] == [
            part["path"] for part in check_result(fs, root)[0]["parts"]
        ]
        bank = ListInMemory(RECORDS)
        manifest = run(fs, root, bank, state)
        assert bank.queries == [{"limit": 5, "starting_after": "r00094"}]
        stored, content = check_only_result(fs, root)
        assert content == lines(bank)
        assert stored == manifest.to_dict()
        assert stored["schema"] == pull(fs, f"{root}-at-once", bank).schema
        assert (manifest.rows, manifest.first_id, manifest.last_id) == (100, "r00000", "r00099")
        assert [part.path for part in manifest.parts] == [f"part-{n:05d}-{manifest.pull_id}.jsonl" for n in range(2)]
        assert state.kept == {}

    def test_the_watermark_depends_on_the_first_attempt(self, store: Store) -> None:
        state = State()
        first = new_attempt(*store, failing(10), state)
        with pytest.raises(BankUnavailable):
            first.run()
        second = new_attempt(*store, failing(2), state)
        assert second.began > first.began
        with pytest.raises(BankUnavailable):
            second.run()
        third = new_attempt(*store, ListInMemory(RECORDS), state)
        third.run()
        assert first.began == second.began == third.began

    def test_the_pull_is_as_old_as_its_oldest_page(self, store: Store) -> None:
        """A load of it does not replace the rows of a pull that began after its first attempt."""
        state = State()
        first = new_attempt(*store, failing(10), state)
        with pytest.raises(BankUnavailable):
            first.run()
        other = new_attempt(store[0], f"{store[1]}-other", ListInMemory(RECORDS), State()).run()
        resumed = new_attempt(*store, ListInMemory(RECORDS), state).run()
        assert start_of(resumed.pull_id) == first.began
        assert resumed.pull_id < other.pull_id

    def test_a_pull_that_cannot_resume_is_new(self, store: Store) -> None:
        fs, root = store
        state = State()
        first = new_attempt(fs, root, failing(10), state)
        with pytest.raises(BankUnavailable):
            first.run()
        [part] = [name for name in names(fs, root) if name.startswith("_part-")]
        fs.rm(f"{root}/{part}")
        other = new_attempt(fs, f"{root}-other", ListInMemory(RECORDS), State()).run()
        manifest = run(fs, root, ListInMemory(RECORDS), state)
        assert manifest.pull_id > other.pull_id
        assert check_only_result(fs, root)[0] == manifest.to_dict()

    def test_again_and_again(self, store: Store) -> None:
        fs, root = store
        state = State()
        asked = 0
        for _ in range(19):
            bank = failing(2)
            with pytest.raises(BankUnavailable):
                run(fs, root, bank, state)
            asked += len(bank.queries)
        bank = ListInMemory(RECORDS)
        manifest = run(fs, root, bank, state)
        assert (asked, len(bank.queries)) == (38, 1)
        assert (manifest.rows, len(manifest.parts)) == (100, 20)
        assert check_only_result(fs, root)[1] == lines(bank)

    def test_without_a_record_there_is_no_checkpoint(self, store: Store) -> None:
        state = State()
        with pytest.raises(BankUnavailable):
            run(*store, failing(1), state)
        assert (names(*store), state.kept) == ([], {})

    def test_windows(self, store: Store) -> None:
        """The bank fails at different requests, with 16 windows. No record is lost or pulled twice."""
        fs, root = store
        bank = TimedList([n // 3 * 1000 for n in range(600)], includes=True)
        interval = parse_interval(BEGIN, BEGIN + timedelta(seconds=200))
        request: dict[str, Any] = {"interval": interval, "max_parallel_windows": 16, "query": {"limit": 10}}
        expected = b"".join(r + b"\n" for r in bank.records)
        saved = 0
        for at in (1, 2, 3, 5, 8, 15, 25, 40, 55):
            state, asked = State(), 0

            def answer(query: dict[str, Any], at: int = at) -> bytes:
                nonlocal asked
                asked += 1
                if asked >= at:
                    raise BankUnavailable("no answer")
                return bank(query)

            with pytest.raises(BankUnavailable):
                run(fs, root, answer, state, **request)
            before = len(bank.queries)
            run(fs, root, bank, state, **request)
            assert check_only_result(fs, root)[1] == expected, at
            saved += 60 - (len(bank.queries) - before)
        assert saved > 40  # of 145; each split costs a page, and the number of splits depends on the threads

    @pytest.mark.parametrize(
        ("error", "kept"),
        [
            (IntergiroResponseError("cursor"), False),
            (UnreadableResponse("HTML"), True),
            (IntergiroValueError("x"), True),
            (ValueError(), True),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_only_a_list_that_contradicts_itself_leaves_nothing(
        self, store: Store, error: Exception, kept: bool
    ) -> None:
        fs, root = store
        state = State()
        with pytest.raises(BankUnavailable):
            run(fs, root, failing(10), state)
        with pytest.raises(type(error)):
            run(fs, root, failing(3, error), state)
        assert (STATE_KEY in state.kept) == bool(names(fs, root)) == kept

    def test_a_record_that_the_bank_has_deleted(self, store: Store) -> None:
        fs, root = store
        for error in (IntergiroValidationError(400), IntergiroNotFound(404)):
            state = State()
            with pytest.raises(BankUnavailable):
                run(fs, root, failing(10), state)
            with pytest.raises(IntergiroResponseError, match="The next attempt starts from the beginning"):
                run(fs, root, failing(1, error), state)
            assert (names(fs, root), state.kept) == ([], {})

    def test_a_commit_that_fails(self, store: Store) -> None:
        """All records are pulled, but cannot be published. The next attempt sends no request."""
        fs, root = store
        pull(fs, root, FORMER)
        state = State()
        with pytest.raises(OSError, match="no space"):
            run(broken_commit(fs), root, ListInMemory(RECORDS), state, part_bytes=500)
        published = [part["path"] for part in check_result(fs, root)[0]["parts"]]
        others = [name for name in names(fs, root) if name.startswith("part-") and name not in published]
        # An object store may still carry out a PUT without a response: a manifest that names these parts.
        assert bool(others) == isinstance(fs, ObjectStore)
        bank = ListInMemory(RECORDS)
        run(fs, root, bank, state, part_bytes=500)
        # Parts that such a manifest may name are not used again.
        assert len(bank.queries) == (20 if isinstance(fs, ObjectStore) else 0)
        assert check_only_result(fs, root)[1] == lines(bank)


class TestTheBank:
    def test_one_that_begins_again(self, store: Store) -> None:
        """The bank ignores the cursor and returns its first page. No record is pulled twice."""
        fs, root = store
        state = State()
        with pytest.raises(BankUnavailable):
            run(fs, root, failing(10), state)
        forgetful = ListInMemory(RECORDS)
        with pytest.raises(IntergiroResponseError, match="did not continue"):
            run(fs, root, lambda query: forgetful({**query, "starting_after": None}), state)
        assert (names(fs, root), state.kept) == ([], {})

    def test_records_without_ids(self, store: Store) -> None:
        """There is no cursor, and the interval has not ended: the next attempt starts from the beginning."""
        fs, root = store
        now = datetime.now(UTC)
        state = State()
        request: dict[str, Any] = {"interval": parse_interval(now - timedelta(hours=1), now + timedelta(hours=1))}
        answer = json.dumps([{"created_at": stamp(now), "n": n} for n in range(3)]).encode()
        with pytest.raises(OSError, match="no space"):
            run(BrokenAt(fs, "mv", "_part"), root, lambda query: answer, state, **request)
        assert STATE_KEY in state.kept
        assert run(fs, root, lambda query: answer, state, **request).rows == 3
        check_only_result(fs, root)

    def test_one_that_does_not_answer_twice(self, store: Store) -> None:
        """The third attempt resumes from the checkpoint of the first."""
        fs, root = store
        state = State()
        for bank in (failing(10), failing(1), failing(1)):
            with pytest.raises(BankUnavailable):
                run(fs, root, bank, state)
        bank = ListInMemory(RECORDS)
        run(fs, root, bank, state)
        assert len(bank.queries) == 11

    def test_a_store_that_is_down_for_a_whole_attempt(self, store: Store) -> None:
        fs, root = store
        state = State()
        with pytest.raises(BankUnavailable):
            run(fs, root, failing(10), state)
        with pytest.raises(OSError, match="No space left"):
            run(Failing(fs, 0, once=False), root, failing(1), state)
        bank = ListInMemory(RECORDS)
        run(fs, root, bank, state)
        assert len(bank.queries) == 11
        assert check_only_result(fs, root)[1] == lines(bank)

    def test_a_store_that_fails_at_the_beginning_of_an_attempt(self, store: Store) -> None:
        fs, root = store
        for at in range(12):
            state = State()
            with pytest.raises(BankUnavailable):
                run(fs, root, failing(10), state)
            try:
                run(Failing(fs, at), root, failing(1), state)
            except (OSError, BankUnavailable):
                pass
            bank = ListInMemory(RECORDS)
            run(fs, root, bank, state)
            assert check_only_result(fs, root)[1] == lines(bank)
            assert len(bank.queries) in (11, 20)

    def test_records_that_are_listed_between_two_attempts(self, store: Store) -> None:
        """The interval has not ended: the end of the window is requested again."""
        fs, root = store
        now = datetime.now(UTC)
        interval = parse_interval(now - timedelta(hours=1), now + timedelta(hours=1))

        def made(number: int) -> bytes:
            return record(number, created_at=stamp(now - timedelta(minutes=50) + timedelta(seconds=number)))

        state = State()
        request: dict[str, Any] = {"interval": interval, "part_bytes": 500}
        with pytest.raises(OSError, match="no space"):
            run(BrokenAt(fs, "mv", "_part"), root, ListInMemory([made(n) for n in range(20)]), state, **request)
        bank = ListInMemory([made(n) for n in range(23)])
        run(fs, root, bank, state, **request)
        assert [query["starting_after"] for query in bank.queries] == ["r00019"]
        assert check_only_result(fs, root)[1] == lines(bank)

    def test_a_list_without_our_order(self, store: Store) -> None:
        fs, root = store
        bank = TimedList([n * 1000 for n in range(60)], knows_order=False, includes=True)
        interval = parse_interval(BEGIN, BEGIN + timedelta(seconds=60))
        state, asked = State(), 0

        def answer(query: dict[str, Any]) -> bytes:
            nonlocal asked
            asked += 1
            if asked == 6:
                raise BankUnavailable("no answer")
            return bank(query)

        request: dict[str, Any] = {"interval": interval, "max_parallel_windows": 4, "query": {"limit": 10}}
        with pytest.raises(BankUnavailable):
            run(fs, root, answer, state, **request)
        before = len(bank.queries)
        run(fs, root, bank, state, **request)
        assert len(bank.queries) - before == 2
        assert check_only_result(fs, root)[1] == b"".join(r + b"\n" for r in reversed(bank.records))
