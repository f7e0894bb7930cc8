# SPDX-License-Identifier: Apache-2.0
"""If a pull fails, the previous result stays, and no other file is left."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError, StorageError
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.pull import PullStopped
from tests.unit.pull.lists import ListInMemory, page, record
from tests.unit.pull.pulling import FORMER, NEW, Store, lines, pull, store
from tests.unit.pull.stores import Failing, Hooked, ObjectStore, check_only_result, check_result, names

__all__ = ["store"]  # a fixture


class TestFailure:
    """A failed pull leaves the previous result, and deletes its own files."""

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
        with pytest.raises(IntergiroResponseError, match="without a valid `created_at`"):
            pull(fs, root, lambda query: b'[{"id":"a"}]', interval=parse_interval("2026-01-01", "2026-01-02"))
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def operations(self, store: Store) -> int:
        """Return the number of file system operations of a pull over a previous result."""
        fs, root = store
        counting = Failing(fs, None)
        pull(counting, root, NEW)
        pull(counting, root, NEW)
        return counting.count

    @pytest.mark.parametrize("after", [False, True], ids=["not done", "done but its answer lost"])
    def test_of_each_operation_of_the_file_system(
        self, store: Store, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One operation fails once. The published result is complete, and there is no other file."""
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.0)
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
        """All operations from this one fail, as in a killed process. The manifest is valid, and a retry cleans up."""
        monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.0)
        monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.0)
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
        monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.0)
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
            with pytest.raises(IntergiroValueError, match="`path` must be a directory"):
                pull(LocalFileSystem(), str(tmp_path / path), NEW)
        assert (tmp_path / "file").read_bytes() == b"mine"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="what no directory can be made in is Linux's /proc")
    def test_a_path_where_no_directory_can_be_created(self) -> None:
        with pytest.raises(StorageError, match=r"`path`: the directory /proc/lake cannot be created: No such file"):
            pull(LocalFileSystem(), "/proc/lake", NEW)

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
        for request in ({"query": {"limit": 0}}, {"file_format": "orc"}, {"compression": "lzma"}):
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


def test_a_manifest_that_lands_between_two_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store gives no response, and carries out the PUT while the pull waits for its next attempt."""
    fs, root = ObjectStore(), "/lake/transactions"
    pull(fs, root, FORMER)
    put = fs.pipe_file
    late: list[tuple[str, bytes]] = []

    def unanswered(path: str, content: bytes, **_: Any) -> None:
        if path.endswith("/_manifest.json") and not late:
            late.append((path, content))
            raise OSError(110, "no answer")
        put(path, content)

    monkeypatch.setattr(fs, "pipe_file", unanswered)
    monkeypatch.setattr("intergiro_provider.pull.target.time.sleep", lambda seconds: put(*late[0]))
    manifest = pull(fs, root, NEW)
    assert late
    assert check_only_result(fs, root) == (manifest.to_dict(), lines(NEW))
