# SPDX-License-Identifier: Apache-2.0
"""The names of a pull's files, and when its lock file is stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.pull import lock_files
from intergiro_provider.pull import names as file_names
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, pages_of, record
from tests.unit.pull.stores import check_only_result, check_result, names

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)


def holder(owner: str, started: datetime = NOW, **changes: object) -> bytes:
    """Return the content of a lock file of this process."""
    return json.dumps(json.loads(lock_files.content(owner, started)) | changes).encode()


class TestNames:
    def test_a_pulls_files_are_recognised(self) -> None:
        pull = file_names.new_pull_id()
        for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"):
            part = file_names.part_name(12345678, pull, suffix)
            assert file_names.pull_of(part) == file_names.pull_of(file_names.staged_part(part)) == pull
            assert not file_names.is_unpublished(part)
            assert file_names.is_unpublished(file_names.staged_part(part))
        assert file_names.pull_of(file_names.temporary_manifest(pull)) == pull
        assert file_names.pull_of_lock_file(file_names.lock_file(pull)) == pull

    def test_the_names_that_users_rely_on(self) -> None:
        assert file_names.part_name(0, "<pull id>", ".jsonl.gz") == "part-00000-<pull id>.jsonl.gz"

    def test_pulls_sort_by_their_beginning(self) -> None:
        ids = [file_names.new_pull_id() for _ in range(100)]
        assert ids == sorted(ids)
        assert len(set(ids)) == 100

    @pytest.mark.parametrize(
        "name",
        ["_manifest.json", "part-0.jsonl", "_SUCCESS", "",
         "part-0-20260101T000000000000-0123abcd.csv", "part-0-20260101T000000000000-0123abcd.jsonl.bak",
         "xpart-0-20260101T000000000000-0123abcd.jsonl", "_part-0-20260101T000000000000-0123abcd.jsonl"],
    )  # fmt: skip
    def test_other_names_are_not(self, name: str) -> None:
        assert file_names.pull_of(name) is None
        assert file_names.pull_of_lock_file(name) is None


class TestStale:
    def test_not_of_a_running_process(self) -> None:
        assert not lock_files.is_stale(file_names.new_pull_id(), holder("dag.task"), "dag.other", LATER)
        assert not lock_files.is_stale(file_names.new_pull_id(), holder(""), "", LATER)

    def test_of_an_earlier_attempt_of_the_same_task(self) -> None:
        """A resumed attempt has the time of the first one in its name, so the name does not tell which is earlier."""
        names = file_names.new_pull_id(), file_names.new_pull_id(NOW - timedelta(hours=20))
        for name in names:
            assert lock_files.is_stale(name, holder("dag.task"), "dag.task", LATER)
            assert not lock_files.is_stale(name, holder("dag.task", LATER), "dag.task", NOW)

    def test_of_a_process_of_this_machine_that_has_ended(self) -> None:
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        ended = holder("", pid=int(child.stdout))
        assert lock_files.is_stale(file_names.new_pull_id(), ended, "", LATER)
        elsewhere = holder("", pid=int(child.stdout), host="elsewhere/boot/pid:[1]")
        assert not lock_files.is_stale(file_names.new_pull_id(), elsewhere, "", LATER)

    def test_not_of_a_process_of_another_user(self) -> None:
        assert not lock_files.is_stale(file_names.new_pull_id(), holder("", pid=1), "", LATER)

    def test_more_than_a_day_old(self) -> None:
        first_attempt = file_names.new_pull_id(NOW - timedelta(hours=47))
        for hours, stale in ((25, True), (23, False)):
            stored = holder("dag.task", NOW - timedelta(hours=hours))
            assert lock_files.is_stale(first_attempt, stored, "other", LATER) is stale

    @pytest.mark.parametrize("content", [b"[]", b'{"pid": "x", "started": "x"}'])
    def test_without_a_time_that_in_the_name_counts(self, content: bytes) -> None:
        for hours, stale in ((25, True), (23, False)):
            name = file_names.new_pull_id(NOW - timedelta(hours=hours))
            assert lock_files.is_stale(name, content, "other", LATER) is stale

    @pytest.mark.parametrize("content", [b"", holder("dag.task")[:-5], b"\xff"])
    def test_incomplete(self, content: bytes) -> None:
        assert lock_files.is_stale(file_names.new_pull_id(), content, "other", LATER)

    def test_not_with_a_name_that_holds_no_date(self) -> None:
        assert not lock_files.is_stale("99999999T999999999999-0123abcd", b"", "", LATER)

    def test_the_description_for_a_message(self) -> None:
        assert lock_files.describe(holder("dag.task")) == "dag.task"
        assert lock_files.describe(holder("")).startswith(f"process {os.getpid()} on ")
        assert lock_files.describe(b"torn") == "process ? on ?"


def test_after_kill_9_the_former_result_stands_and_the_next_pull_clears_up(tmp_path: Path) -> None:
    def pull(bank: ListInMemory) -> None:
        Pull(PullRequest(endpoint="x"), pages_of(bank), Target(Directory(LocalFileSystem(), str(tmp_path)))).run()

    former, new = ListInMemory([record(n) for n in range(5)]), ListInMemory([record(n) for n in range(300)])
    pull(former)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import os, signal, sys
                from fsspec.implementations.local import LocalFileSystem
                from intergiro_provider.pull.directory import Directory
                from intergiro_provider.pull.pull import Pull, PullRequest
                from intergiro_provider.pull.target import Target
                from tests.unit.pull.lists import ListInMemory, pages_of, record

                bank = ListInMemory([record(n) for n in range(300)])

                def fetch(query):
                    if len(bank.queries) == 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return bank(query)

                target = Target(Directory(LocalFileSystem(), sys.argv[1]))
                Pull(PullRequest(endpoint="x"), pages_of(fetch), target).run()
            """),
            str(tmp_path),
        ],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    fs = LocalFileSystem()
    assert len([n for n in names(fs, str(tmp_path)) if n.startswith(("_part", "_pull"))]) == 2
    assert check_result(fs, str(tmp_path))[0]["rows"] == 5
    pull(new)
    assert check_only_result(fs, str(tmp_path))[0]["rows"] == 300
