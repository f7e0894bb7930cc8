# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints an attempt resumes from, and when it starts from the beginning."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
)
from intergiro_provider.pull import checkpointer
from intergiro_provider.pull.checkpointer import STATE_KEY, Checkpointer
from intergiro_provider.pull.pull import log
from tests.unit.pull.attempts import RECORDS, State, failing, run
from tests.unit.pull.lists import ListInMemory
from tests.unit.pull.pulling import FORMER, Store, lines, pull, store
from tests.unit.pull.stores import check_only_result, names

__all__ = ["store"]  # a fixture


class TestStartsFromTheBeginning:
    @pytest.fixture
    def failed(self, store: Store) -> State:
        state = State()
        with pytest.raises(BankUnavailable):
            run(*store, failing(10), state)
        return state

    def check_all(self, store: Store, state: State, **arguments: Any) -> None:
        bank = ListInMemory(RECORDS)
        run(*store, bank, state, **arguments)
        assert len(bank.queries) == 20
        assert check_only_result(*store)[1] == lines(bank)
        assert state.kept == {}

    def test_after_another_request(self, store: Store, failed: State) -> None:
        self.check_all(store, failed, asked_for="something else")

    def test_when_a_part_is_gone(self, store: Store, failed: State) -> None:
        fs, root = store
        [part] = [n for n in names(fs, root) if n.startswith("_part")]
        fs.rm_file(f"{root}/{part}")
        self.check_all(store, failed)

    def test_when_a_part_is_not_whole(self, store: Store, failed: State) -> None:
        fs, root = store
        [part] = [n for n in names(fs, root) if n.startswith("_part")]
        fs.pipe_file(f"{root}/{part}", fs.cat_file(f"{root}/{part}")[:-1])
        self.check_all(store, failed)

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"version": 2}'])
    def test_when_the_checkpoint_is_invalid(self, store: Store, failed: State, content: bytes) -> None:
        fs, root = store
        [stored] = [n for n in names(fs, root) if n.startswith("_checkpoint")]
        fs.pipe_file(f"{root}/{stored}", content)
        self.check_all(store, failed)

    def test_when_the_checkpoint_is_of_a_later_version(self, store: Store, failed: State) -> None:
        fs, root = store
        [stored] = [n for n in names(fs, root) if n.startswith("_checkpoint")]
        content = json.loads(fs.cat_file(f"{root}/{stored}"))
        fs.pipe_file(f"{root}/{stored}", json.dumps({**content, "version": 2}).encode())
        self.check_all(store, failed)

    @pytest.mark.parametrize("value", [None, 1, [], {}, {"pull_id": 3}, {"pull_id": "../x"}])
    def test_when_the_state_is_odd(self, store: Store, failed: State, value: Any) -> None:
        failed.kept[STATE_KEY] = json.dumps(value)
        bank = ListInMemory(RECORDS)
        run(*store, bank, failed)
        assert len(bank.queries) == 20
        assert check_only_result(*store)[1] == lines(bank)

    def test_after_a_day(self, store: Store, failed: State, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpointer, "MAX_AGE", timedelta(0))
        self.check_all(store, failed)

    def test_when_another_task_has_cleaned_up(self, store: Store, failed: State) -> None:
        pull(*store, FORMER)
        check_only_result(*store)
        self.check_all(store, failed)

    def test_where_there_is_no_state(self, store: Store) -> None:
        pull(*store, FORMER)
        with pytest.raises(BankUnavailable):
            pull(*store, failing(10))
        assert check_only_result(*store)[1] == lines(FORMER)


class TestWithoutAnApiServer:
    @pytest.mark.parametrize("broken", ["get", "set", "delete"])
    def test_the_pull_goes_on(self, store: Store, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpointer, "INTERVAL", 0.0)
        bank = ListInMemory(RECORDS)
        state = State(lambda operation: operation == broken)
        run(*store, bank, state)
        assert broken in state.operations
        assert check_only_result(*store)[1] == lines(bank)

    def test_a_failure_is_the_banks(self, store: Store) -> None:
        with pytest.raises(BankUnavailable):
            run(*store, failing(10), State(lambda operation: operation == "set"))
        assert names(*store) == []


def test_checkpoints_become_rarer() -> None:
    now = 0.0
    checkpoints = Checkpointer(State(), "x", log, clock=lambda: now)
    moments = []
    while now < 3600:
        now += 1.0
        if checkpoints.is_due():
            moments.append(now)
            checkpoints._saved_at = now
    assert moments[:3] == [10.0, 20.0, 30.0]
    assert len(moments) < 90
    assert moments[-1] - moments[-2] <= 0.06 * moments[-1]
