# SPDX-License-Identifier: Apache-2.0
"""An attempt resumes from the checkpoint of a failed one. The result is the same as without the failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroError,
    IntergiroNotFound,
    IntergiroResponseError,
    IntergiroValidationError,
    IntergiroValueError,
    UnreadableResponse,
)
from intergiro_provider.pull import checkpointer
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.checkpoint import fingerprint
from intergiro_provider.pull.checkpointer import STATE_KEY, Checkpointer
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest, PullStopped, log
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, page, pages_of, record
from tests.unit.pull.pulling import FORMER, Store, lines, pull, store
from tests.unit.pull.stores import Failing, ObjectStore, check_only_result, check_result, names
from tests.unit.pull.timed import BEGIN, TimedList, stamp

__all__ = ["store"]  # a fixture

OWNER = "dag.task run -1"
RECORDS = [record(n) for n in range(100)]


class State:
    """What Airflow keeps for a task instance, and whether its API server answers."""

    def __init__(self, fails: Callable[[str], bool] = lambda operation: False) -> None:
        self.kept: dict[str, Any] = {}
        self.operations: list[str] = []
        self.fails = fails

    def get(self, key: str) -> Any:
        self._do("get")
        return json.loads(self.kept[key]) if key in self.kept else None

    def set(self, key: str, value: Any) -> None:
        self._do("set")
        self.kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._do("delete")
        self.kept.pop(key, None)

    def _do(self, operation: str) -> None:
        self.operations.append(operation)
        if self.fails(operation):
            raise ConnectionError("the API server does not answer")


def new_attempt(fs: Any, root: str, bank: Any, state: Any, asked_for: str = "all", **request: Any) -> Pull:
    arguments = {"endpoint": "transactions", "query": {"limit": 5}, **request}
    checkpoints = Checkpointer(state, fingerprint(asked_for), log)
    return Pull(PullRequest(**arguments), pages_of(bank), Target(Directory(fs, root), OWNER), log, checkpoints)


def run(*arguments: Any, **request: Any) -> Manifest:
    return new_attempt(*arguments, **request).run()


def failing(at: int, error: BaseException | None = None, records: list[bytes] = RECORDS) -> ListInMemory:
    """A list whose bank fails from one request on."""

    def broken(number: int) -> bytes | None:
        if number >= at:
            raise error or BankUnavailable("no answer")
        return None

    return ListInMemory(records, broken)


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
        """The bank fails at different requests, with 16 windows: no record is lost, and none is pulled twice."""
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
        """Everything is pulled, but cannot be published. The next attempt sends no request."""
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


class _BrokenAt:
    """A file system that fails one kind of operation on one kind of file."""

    def __init__(self, fs: Any, operation: str, piece: str) -> None:
        self._fs, self._operation, self._piece = fs, operation, piece

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._fs, name)
        if name != self._operation:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._piece in str(args[0]):
                raise OSError(28, "no space")
            return attribute(*args, **kwargs)

        return call


def broken_commit(fs: Any) -> _BrokenAt:
    """A file system on which no manifest can be published."""
    return _BrokenAt(fs, "pipe_file" if isinstance(fs, ObjectStore) else "mv", "_manifest")


class TestTheBank:
    def test_one_that_begins_again(self, store: Store) -> None:
        """It does not know the cursor and returns its first page: no record is pulled twice."""
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
            run(_BrokenAt(fs, "mv", "_part"), root, lambda query: answer, state, **request)
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
            run(_BrokenAt(fs, "mv", "_part"), root, ListInMemory([made(n) for n in range(20)]), state, **request)
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
        """Run an attempt that is killed at one file system operation; return whether it came so far."""
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
        """The attempt is not killed. It keeps only complete parts."""
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
        """The attempt that resumes is killed, too, at each of its operations."""
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
            run(_BrokenAt(fs, "mv", "_part"), root, ListInMemory([*RECORDS]), state)
        run(fs, root, lambda query: page([], has_more=False), state)
        assert check_only_result(fs, root)[0]["rows"] == 100


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
