# SPDX-License-Identifier: Apache-2.0
"""A pull from the first page to the published manifest, and everything that can go wrong on the way."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest, PullStopped
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, page, record
from tests.unit.pull.stores import Failing, Hooked, ObjectStore, Slow, check_only_result, check_result, names

FORMER = ListInMemory([record(n, former=True) for n in range(7)])
NEW = ListInMemory([record(n) for n in range(25)])

Store = tuple[AbstractFileSystem, str]


@pytest.fixture(params=["local", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A file system, and a directory on it that does not exist yet."""
    if request.param == "local":
        return LocalFileSystem(skip_instance_cache=True), str(tmp_path / "lake" / "transactions")
    return ObjectStore(), "/lake/transactions"


def pull(fs: Any, root: str, bank: Any, owner: str = "", **request: Any) -> Manifest:
    """Pull in small pages and, unless told otherwise, into small parts."""
    arguments = {"endpoint": "transactions", "params": {"limit": 5}, "part_bytes": 500, **request}
    return Pull(PullRequest(**arguments), bank, Target(Directory(fs, root), owner)).run()


def lines(bank: ListInMemory) -> bytes:
    return b"".join(r + b"\n" for r in bank.records)


class TestResult:
    def test_the_manifest_names_what_is_there(self, store: Store) -> None:
        fs, root = store
        manifest = pull(fs, root, NEW)
        stored, content = check_only_result(fs, root)
        assert content == lines(NEW)
        assert stored == manifest.to_dict()
        assert list(stored) == [
            "version", "pull_id", "endpoint", "parts", "rows", "bytes", "first_id", "last_id",
            "created_from", "created_to", "provider_version",
        ]  # fmt: skip
        assert list(stored["parts"][0]) == ["path", "rows", "bytes", "sha256"]
        assert stored["version"] == 1
        assert stored["endpoint"] == "transactions"
        assert stored["rows"] == 25
        assert (stored["first_id"], stored["last_id"]) == ("r00000", "r00024")
        assert (stored["created_from"], stored["created_to"]) == (None, None)
        assert stored["provider_version"] == __version__

    def test_parts_are_bounded_and_named_in_order(self, store: Store) -> None:
        fs, root = store
        manifest = pull(fs, root, NEW)
        assert [p.path for p in manifest.parts] == [f"part-{n:05d}-{manifest.pull_id}.jsonl" for n in range(3)]
        assert [p.rows for p in manifest.parts] == [10, 10, 5]

    def test_no_records_no_parts(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        manifest = pull(fs, root, ListInMemory([]))
        assert (manifest.parts, manifest.rows, manifest.bytes, manifest.first_id, manifest.last_id) == (
            [],
            0,
            0,
            None,
            None,
        )
        assert names(fs, root) == ["_manifest.json"]

    def test_a_rerun_replaces_parts_of_every_format(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER, compression="gzip")
        pull(fs, root, FORMER)
        manifest = pull(fs, root, NEW, compression="gzip", part_bytes=1 << 20)
        assert names(fs, root) == ["_manifest.json", f"part-00000-{manifest.pull_id}.jsonl.gz"]
        assert gzip.decompress(fs.cat_file(f"{root}/{manifest.parts[0].path}")) == lines(NEW)

    def test_equal_records_make_equal_files(self, store: Store) -> None:
        fs, root = store
        first, second = (pull(fs, root, NEW, compression="gzip") for _ in range(2))
        assert [p.sha256 for p in first.parts] == [p.sha256 for p in second.parts]

    def test_other_files_are_left_alone(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        others = [
            "part-0.jsonl",
            "part-00000-notes.jsonl",
            "_SUCCESS",
            "_part-1.tmp",
            "notes.txt",
            "part-0-20260101T000000000000-abc.jsonl",
        ]
        for name in others:
            fs.pipe_file(f"{root}/{name}", b"mine")
        pull(fs, root, NEW)
        assert set(others) <= set(names(fs, root))

    def test_records_without_ids(self, store: Store) -> None:
        fs, root = store
        manifest = pull(fs, root, lambda query: b'[{"iban": "SE1"}, {"iban": "SE2"}]')
        assert (manifest.rows, manifest.first_id, manifest.last_id) == (2, None, None)
        assert check_only_result(fs, root)[1] == b'{"iban": "SE1"}\n{"iban": "SE2"}\n'


class TestInterval:
    REQUEST: ClassVar[dict[str, Any]] = {"interval": parse_interval("2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z")}

    def test_only_what_lies_in_it(self, store: Store) -> None:
        fs, root = store
        bank = ListInMemory([record(n) for n in range(60)])
        manifest = pull(fs, root, bank, **self.REQUEST)
        assert check_only_result(fs, root)[1] == b"".join(record(n) + b"\n" for n in range(10, 20))
        assert (manifest.first_id, manifest.last_id) == ("r00010", "r00019")
        assert (manifest.created_from, manifest.created_to) == ("2026-01-01T00:00:10.000Z", "2026-01-01T00:00:20.000Z")
        assert bank.queries[0] == {
            "limit": 5,
            "created_from": "2026-01-01T00:00:09.999Z",
            "created_to": "2026-01-01T00:00:20.000Z",
        }

    def test_ends_in_the_middle_of_pages(self, store: Store) -> None:
        fs, root = store
        manifest = pull(fs, root, ListInMemory([record(n) for n in range(60)]), params={"limit": 7}, **self.REQUEST)
        assert (manifest.rows, manifest.first_id, manifest.last_id) == (10, "r00010", "r00019")

    def test_bounds_in_params_as_well_are_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` is given twice"):
            PullRequest(endpoint="x", params={"created_from": "2026-01-01"}, **self.REQUEST)

    def test_bounds_in_params_alone_are_the_users_own(self, store: Store) -> None:
        bank = ListInMemory([record(1)])
        pull(*store, bank, params={"created_from": "2026-01-01"})
        assert bank.queries == [{"created_from": "2026-01-01", "limit": 100}]


class TestFailure:
    """A pull that fails leaves the former result, and nothing of its own."""

    def failing_bank(self, answer: Any) -> ListInMemory:
        def broken(number: int) -> bytes | None:
            if number < 3:
                return None
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return ListInMemory([record(n) for n in range(25)], broken)

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (ConnectionError("dropped"), ConnectionError),
            (b'{"data":[{"id":"', IntergiroResponseError),
            (b"<html>", IntergiroResponseError),
            (page([record(9)], has_more=True), IntergiroResponseError),
            (page([], has_more=True), IntergiroResponseError),
            (KeyboardInterrupt(), KeyboardInterrupt),
            (PullStopped(), PullStopped),
        ],
    )
    def test_of_the_bank(self, store: Store, answer: Any, error: type[BaseException]) -> None:
        fs, root = store
        former = pull(fs, root, FORMER)
        with pytest.raises(error):
            pull(fs, root, self.failing_bank(answer))
        manifest, content = check_only_result(fs, root)
        assert (manifest, content) == (former.to_dict(), lines(FORMER))

    def test_of_the_first_pull_ever(self, store: Store) -> None:
        fs, root = store
        fs.makedirs(root, exist_ok=True)
        with pytest.raises(ConnectionError):
            pull(fs, root, self.failing_bank(ConnectionError()))
        assert names(fs, root) == []

    def test_of_a_record_without_a_time_in_an_interval(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        with pytest.raises(IntergiroResponseError, match="without a `created_at`"):
            pull(fs, root, lambda query: b'[{"id":"a"}]', interval=parse_interval("2026-01-01", "2026-01-02"))
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def operations(self, store: Store) -> int:
        """How many operations a pull over a former result asks of the file system."""
        fs, root = store
        counting = Failing(fs, None)
        pull(counting, root, NEW)
        pull(counting, root, NEW)
        return counting.count

    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done but its answer lost"])
    def test_of_each_operation_of_the_file_system(
        self, store: Store, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One operation fails, once: what is published then is whole, and nothing else is there."""
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        fs, root = store
        failures = 0
        for number in range(self.operations(store)):
            pull(fs, root, FORMER)
            broken = Failing(fs, number, after=after)
            try:
                pull(broken, root, NEW)
            except OSError:
                failures += 1
            if broken.count <= number:
                break
            _manifest, content = check_only_result(fs, root)
            assert content in (lines(FORMER), lines(NEW))
        else:
            pytest.fail("the loop never reached the end of a pull")
        assert failures > 10

    def test_of_the_whole_process_at_each_operation(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """From one operation on, all fail, as if the process were killed: the manifest holds, and a retry clears up."""
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        fs, root = store
        for number in range(self.operations(store)):
            pull(fs, root, FORMER)
            killed = Failing(fs, number, once=False)
            try:
                pull(killed, root, NEW, owner="dag.task run 1")
            except (OSError, IntergiroError):
                pass
            if killed.count <= number:
                break
            assert check_result(fs, root)[1] in (lines(FORMER), lines(NEW))
            pull(fs, root, FORMER, owner="dag.task run 1")
            assert check_only_result(fs, root)[1] == lines(FORMER)
        else:
            pytest.fail("the loop never reached the end of a pull")

    def test_of_deleting_former_parts_is_no_success(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        fs, root = store
        former = pull(fs, root, FORMER)

        def rm_file(path: str) -> None:
            if former.pull_id in path:
                raise PermissionError(13, "Permission denied")
            type(fs).rm_file(fs, path)

        monkeypatch.setattr(fs, "rm_file", rm_file)
        with pytest.raises(IntergiroError, match="could not be deleted"):
            pull(fs, root, NEW)
        assert check_result(fs, root)[1] == lines(NEW)

    def test_a_path_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"mine")
        for path in ("file", "file/below"):
            with pytest.raises(IntergiroValueError, match="`path` has to be a directory"):
                pull(LocalFileSystem(), str(tmp_path / path), NEW)
        assert (tmp_path / "file").read_bytes() == b"mine"

    @pytest.mark.parametrize("content", [b"", b'{"entries": []}', b"[]", b"\xff", b'{"version": 99}'])
    def test_a_manifest_of_somebody_else_is_not_overwritten(self, store: Store, content: bytes) -> None:
        fs, root = store
        fs.makedirs(root, exist_ok=True)
        fs.pipe_file(f"{root}/_manifest.json", content)
        with pytest.raises(
            IntergiroValueError, match=r"`path`: the _manifest.json in .* was not written by this provider"
        ):
            pull(fs, root, NEW)
        assert names(fs, root) == ["_manifest.json"]
        assert fs.cat_file(f"{root}/_manifest.json") == content

    def test_a_manifest_of_a_newer_version_is_not_overwritten(self, store: Store) -> None:
        fs, root = store
        newer = pull(fs, root, FORMER).to_dict() | {"version": 2}
        fs.pipe_file(f"{root}/_manifest.json", json.dumps(newer).encode())
        with pytest.raises(IntergiroValueError, match="a newer version"):
            pull(fs, root, NEW)
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def test_arguments_are_checked_before_anything_is_written(self, store: Store) -> None:
        fs, root = store
        bank = ListInMemory([record(1)])
        for request in ({"params": {"limit": 0}}, {"file_format": "parquet"}, {"compression": "lzma"}):
            with pytest.raises(IntergiroValueError):
                pull(fs, root, bank, **request)
        assert bank.queries == []
        assert not fs.exists(root)

    def test_of_the_answer_alone_when_the_manifest_is_written_is_none(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)

        def lose() -> None:
            raise OSError("The answer was lost")

        write = ("mv", "/_manifest.json") if root != "/lake/transactions" else ("pipe_file", "/_manifest.json")
        pull(Hooked(fs, write, lose, after=True), root, NEW)
        assert check_only_result(fs, root)[1] == lines(NEW)

    def test_readers_never_find_a_piece_of_a_manifest(self, store: Store) -> None:
        fs, root = store
        directory = Directory(fs, root)
        directory.make()
        contents = {letter * 3_000_000 for letter in (b"a", b"b")}
        read: set[bytes] = set()
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                read.add(directory.read("_manifest.json") or b"a" * 3_000_000)

        reader = threading.Thread(target=look)
        reader.start()
        for content in [*contents] * 30:
            directory.replace("_manifest.json", content, "_manifest.tmp")
        done.set()
        reader.join()
        assert read <= contents


class TestStopping:
    def test_stop_publishes_nothing(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []

        def stopping(query: dict[str, Any]) -> bytes:
            if query.get("starting_after"):
                running[0].stop()
            return NEW(query)

        running.append(Pull(PullRequest(endpoint="x", params={"limit": 5}), stopping, Target(Directory(fs, root))))
        with pytest.raises(IntergiroError, match="stopped; nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def test_stop_during_the_last_page(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []

        def stopping(query: dict[str, Any]) -> bytes:
            running[0].stop()
            return page([record(1)], has_more=False)

        running.append(Pull(PullRequest(endpoint="x"), stopping, Target(Directory(fs, root))))
        with pytest.raises(IntergiroError, match="stopped; nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def test_stop_after_the_last_page(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []
        hooked = Hooked(fs, ("open", "_part-00000"), lambda: running[0].stop(), after=True)
        running.append(Pull(PullRequest(endpoint="x"), NEW, Target(Directory(hooked, root))))
        with pytest.raises(IntergiroError, match="stopped; nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)


class TestTwoAtOnce:
    """Two pulls into one directory: one is refused or wins whole."""

    def during(self, store: Store, step: Callable[[], Any], owner: str = "") -> Manifest:
        """Pull, and do something else after the second page."""
        bank = ListInMemory(NEW.records)
        done = iter([step])

        def fetch(query: dict[str, Any]) -> bytes:
            if len(bank.queries) == 2:
                next(done)()
            return bank(query)

        return pull(*store, fetch, owner=owner)

    def test_the_first_to_finish_is_published(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        pull(*store, FORMER)
        other = ListInMemory([record(n, other=True) for n in range(12)])
        with pytest.raises(IntergiroError, match="two tasks write to one `path`"):
            self.during(store, lambda: pull(*store, other), owner="dag.slow")
        assert check_only_result(*store)[1] == lines(other)
        assert re.search(r"Another pull \(.*, by dag.slow\) is writing", caplog.text)

    def test_where_there_was_nothing_before(self, store: Store) -> None:
        with pytest.raises(IntergiroError, match="two tasks write to one `path`"):
            self.during(store, lambda: pull(*store, FORMER))
        assert check_only_result(*store)[1] == lines(FORMER)

    def test_one_that_fails_does_not_disturb(self, store: Store) -> None:
        def fail() -> None:
            with pytest.raises(IntergiroResponseError):
                pull(*store, lambda query: b"")

        self.during(store, fail)
        assert check_only_result(*store)[1] == lines(NEW)

    def test_a_retry_ends_the_try_before_it(self, store: Store) -> None:
        """A worker that was lost, and so retried, wakes up while the retry is at work, or after it."""
        retry = ListInMemory([record(n, retry=True) for n in range(12)])
        with pytest.raises(IntergiroError, match="taken for dead"):
            self.during(store, lambda: pull(*store, retry, owner="dag.task run"), owner="dag.task run")
        assert check_only_result(*store)[1] == lines(retry)

    def empty_manifest(self, target: Target) -> Manifest:
        return Manifest(
            pull_id=target.pull_id, endpoint="x", parts=[], rows=0, bytes=0, first_id=None, last_id=None,
            created_from=None, created_to=None,
        )  # fmt: skip

    def test_while_the_retry_is_at_work(self, store: Store) -> None:
        pull(*store, FORMER)

        def wake_up() -> None:
            with pytest.raises(IntergiroError, match="taken for dead"):
                late.commit(manifest)
            late.abandon()

        late = Target(Directory(*store), "dag.task run")
        late.begin()
        manifest = self.empty_manifest(late)
        self.during(store, wake_up, owner="dag.task run")
        assert check_only_result(*store)[1] == lines(NEW)

    def test_a_late_manifest_of_a_try_that_was_taken_for_dead(self, store: Store) -> None:
        """It was paused between its last look and its PUT, which no object store can prevent; the retry replaces it."""
        fs, root = store
        pull(*store, FORMER)
        late = Target(Directory(*store), "dag.task run")
        late.begin()
        manifest = self.empty_manifest(late)
        self.during(store, lambda: fs.pipe_file(f"{root}/_manifest.json", manifest.to_json()), owner="dag.task run")
        assert check_only_result(fs, root)[1] == lines(NEW)

    def test_a_commit_in_the_midst_of_anothers_sweep(self) -> None:
        """Both have looked, and found the same manifest, before either replaced it: the later one wins whole."""
        fs, root = ObjectStore(), "/lake/transactions"
        pull(fs, root, FORMER)
        later = ListInMemory([record(n, later=True) for n in range(12)])
        has_looked, may_replace = threading.Event(), threading.Event()

        def wait() -> None:
            has_looked.set()
            may_replace.wait(10)

        other = Target(Directory(Hooked(fs, ("pipe_file", "/_manifest.json"), wait), root))
        thread = threading.Thread(target=Pull(PullRequest(endpoint="x"), later, other).run)

        def start_the_other() -> None:
            thread.start()
            has_looked.wait(10)

        def let_it_replace() -> None:
            may_replace.set()
            thread.join(10)

        before_replacing = Hooked(fs, ("pipe_file", "/_manifest.json"), start_the_other)
        pull(Hooked(before_replacing, ("cat_file", f"/_pull-{other.pull_id}"), let_it_replace), root, NEW)
        assert check_only_result(fs, root)[1] == lines(later)

    @pytest.mark.parametrize("seed", range(8))
    def test_many_at_once_in_every_order(self, store: Store, seed: int) -> None:
        """Threads whose steps on the file system mix at random, some of them retries of one another."""
        fs, root = store
        pull(fs, root, FORMER)
        random_source = random.Random(seed)
        banks = [ListInMemory([record(n, pull=number) for n in range(12)]) for number in range(6)]
        outcomes: list[bool] = []
        surprises: list[BaseException] = []

        def run(number: int) -> None:
            slow = Slow(fs, itertools.cycle([random_source.random() * 0.004 for _ in range(97)]))
            try:
                pull(slow, root, banks[number], owner=f"task {number % 3}" if number < 4 else "")
                outcomes.append(True)
            except IntergiroError:
                outcomes.append(False)
            except BaseException as error:
                surprises.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(banks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert surprises == []
        assert True in outcomes
        assert check_only_result(fs, root)[1] in map(lines, banks)


class TestProgress:
    def test_a_summary_and_no_line_per_page(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            pull(*store, NEW)
        assert [m for m in caplog.messages if "pages" in m] == [
            m for m in caplog.messages if m.startswith("transactions: pulled 25 records from 5 pages in ")
        ]
        assert len(caplog.messages) == 1

    def test_replacing_another_endpoint_is_pointed_out(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        pull(*store, FORMER, endpoint="accounts")
        pull(*store, NEW)
        assert "replaces a result of another endpoint, accounts" in caplog.text
