# SPDX-License-Identifier: Apache-2.0
"""A killed attempt leaves its last checkpoint, and the next one resumes from it."""

from __future__ import annotations

from typing import Any

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroError,
)
from intergiro_provider.pull import checkpointer
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import PullStopped
from tests.unit.pull.attempts import RECORDS, State, failing, run
from tests.unit.pull.lists import ListInMemory, page
from tests.unit.pull.pulling import FORMER, Store, lines, pull, store
from tests.unit.pull.stores import BrokenAt, Failing, ObjectStore, broken_commit, check_only_result, check_result

__all__ = ["store"]  # a fixture


class TestKilled:
    """A killed attempt leaves its last checkpoint."""

    @pytest.fixture(autouse=True)
    def a_checkpoint_after_each_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpointer, "INTERVAL", 0.0)
        monkeypatch.setattr(checkpointer, "SHARE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.pull.STOP_WITHIN", 0.01)

    def test_the_state_is_written_once(self, store: Store) -> None:
        state = State()
        run(*store, ListInMemory(RECORDS), state)
        assert state.operations == ["get", "set", "delete"]

    def kill(self, store: Store, at: int, bank: Any, state: State) -> bool:
        """Run an attempt that is killed at one file system operation. Return whether it reached the operation."""
        fs, root = store
        killed = Failing(fs, at, once=False)
        state.fails = lambda operation: killed.count > at
        try:
            run(killed, root, bank, state)
        except (OSError, IntergiroError):
            pass
        state.fails = lambda operation: False
        return killed.count > at

    def test_at_each_operation(self, store: Store) -> None:
        fs, root = store
        records = RECORDS[:30]
        asked = []
        for at in range(1000):
            pull(fs, root, FORMER)
            state = State()
            if not self.kill(store, at, ListInMemory(records), state):
                break
            found = check_result(fs, root)[1]
            assert found in (lines(FORMER), b"".join(r + b"\n" for r in records))
            bank = ListInMemory(records)
            with pytest.raises(OSError, match="no space"):
                run(broken_commit(fs), root, bank, state)
            assert check_result(fs, root)[1] == found
            run(fs, root, bank, state)
            assert check_only_result(fs, root)[1] == lines(bank)
            assert state.kept == {}
            asked.append(len(bank.queries))
        else:
            pytest.fail("the loop never reached the end of a pull")
        again = 6 if isinstance(fs, ObjectStore) else 0  # by the third attempt: see test_a_commit_that_fails
        assert {6, 5, 4, 3, 2, 1} <= {number - again for number in asked}

    def test_each_operation_fails_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """The attempt is not killed, and keeps only complete parts."""
        monkeypatch.setattr("intergiro_provider.pull.jsonl._BLOCK", 1)
        monkeypatch.setattr(checkpointer, "INTERVAL", 1000.0)
        fs, root = store
        records = RECORDS[:30]
        for at in range(1000):
            pull(fs, root, FORMER)
            state, broken = State(), Failing(fs, at)
            try:
                run(broken, root, ListInMemory(records), state)
            except OSError:
                assert check_result(fs, root)[1] in (lines(FORMER), b"".join(r + b"\n" for r in records))
            if broken.count <= at:
                break
            bank = ListInMemory(records)
            run(fs, root, bank, state)
            assert check_only_result(fs, root)[1] == lines(bank)
        else:
            pytest.fail("the loop never reached the end of a pull")

    def test_twice(self, store: Store) -> None:
        """The resumed attempt is killed, too, at each of its operations."""
        fs, root = store
        records = RECORDS[:30]
        asked = []
        for at in range(1000):
            pull(fs, root, FORMER)
            state = State()
            with pytest.raises(BankUnavailable):
                run(fs, root, failing(4, records=records), state)
            if not self.kill(store, at, ListInMemory(records), state):
                break
            assert check_result(fs, root)[1] in (lines(FORMER), b"".join(r + b"\n" for r in records))
            bank = ListInMemory(records)
            run(fs, root, bank, state)
            assert check_only_result(fs, root)[1] == lines(bank)
            asked.append(len(bank.queries))
        else:
            pytest.fail("the loop never reached the end of a pull")
        assert {3, 2, 1} <= set(asked)

    def test_an_attempt_that_continues_does_no_harm(self, store: Store) -> None:
        """Airflow lost the worker, but its attempt continues while the next one runs."""
        fs, root = store
        state = State()
        later: list[Manifest] = []

        def answer(number: int) -> bytes | None:
            if number == 12:
                later.append(run(fs, root, ListInMemory(RECORDS), state))
            return None

        with pytest.raises(IntergiroError, match="the lock file of this pull"):
            run(fs, root, ListInMemory(RECORDS, answer), state)
        assert check_only_result(fs, root)[0] == later[0].to_dict()
        assert later[0].rows == 100

    def test_one_that_is_told_to_stop_leaves_its_last_checkpoint(self, store: Store) -> None:
        fs, root = store
        state = State()
        with pytest.raises(PullStopped):
            run(fs, root, failing(15, PullStopped()), state)
        bank = ListInMemory(RECORDS)
        run(fs, root, bank, state)
        assert len(bank.queries) == 6
        assert check_only_result(fs, root)[1] == lines(bank)

    def test_a_window_that_has_ended_is_not_requested_again(self, store: Store) -> None:
        fs, root = store
        state = State()
        with pytest.raises(OSError, match="no space"):
            run(BrokenAt(fs, "mv", "_part"), root, ListInMemory([*RECORDS]), state)
        run(fs, root, lambda query: page([], has_more=False), state)
        assert check_only_result(fs, root)[0]["rows"] == 100
