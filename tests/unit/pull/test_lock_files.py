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

LATER = "99991231T235959999999-00000000"


def pull_id(age: timedelta) -> str:
    return f"{datetime.now(UTC) - age:%Y%m%dT%H%M%S%f}-0123abcd"


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
        assert not lock_files.is_stale(file_names.new_pull_id(), lock_files.content("dag.task"), LATER, "dag.other")
        assert not lock_files.is_stale(file_names.new_pull_id(), lock_files.content(""), LATER, "")

    def test_of_an_earlier_attempt_of_the_same_task(self) -> None:
        earlier, later = file_names.new_pull_id(), file_names.new_pull_id()
        assert lock_files.is_stale(earlier, lock_files.content("dag.task"), later, "dag.task")
        assert not lock_files.is_stale(later, lock_files.content("dag.task"), earlier, "dag.task")

    def test_of_a_process_of_this_machine_that_has_ended(self) -> None:
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        holder = json.loads(lock_files.content("")) | {"pid": int(child.stdout)}
        assert lock_files.is_stale(file_names.new_pull_id(), json.dumps(holder).encode(), LATER, "")
        elsewhere = holder | {"host": "elsewhere/boot/pid:[1]"}
        assert not lock_files.is_stale(file_names.new_pull_id(), json.dumps(elsewhere).encode(), LATER, "")

    def test_not_of_a_process_of_another_user(self) -> None:
        holder = json.loads(lock_files.content("")) | {"pid": 1}
        assert not lock_files.is_stale(file_names.new_pull_id(), json.dumps(holder).encode(), LATER, "")

    @pytest.mark.parametrize("content", [lock_files.content("dag.task"), b"[]", b'{"pid": "x"}'])
    def test_more_than_a_day_old(self, content: bytes) -> None:
        assert lock_files.is_stale(pull_id(timedelta(hours=25)), content, LATER, "other")
        assert not lock_files.is_stale(pull_id(timedelta(hours=23)), content, LATER, "other")

    @pytest.mark.parametrize("content", [b"", lock_files.content("dag.task")[:-5], b"\xff"])
    def test_incomplete(self, content: bytes) -> None:
        assert lock_files.is_stale(file_names.new_pull_id(), content, LATER, "other")

    def test_not_with_a_name_that_holds_no_date(self) -> None:
        assert not lock_files.is_stale("99999999T999999999999-0123abcd", b"", LATER, "")

    def test_the_description_for_a_message(self) -> None:
        assert lock_files.describe(lock_files.content("dag.task")) == "dag.task"
        assert lock_files.describe(lock_files.content("")).startswith(f"process {os.getpid()} on ")
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
        timeout=60,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    fs = LocalFileSystem()
    assert len([n for n in names(fs, str(tmp_path)) if n.startswith(("_part", "_pull"))]) == 2
    assert check_result(fs, str(tmp_path))[0]["rows"] == 5
    pull(new)
    assert check_only_result(fs, str(tmp_path))[0]["rows"] == 300
