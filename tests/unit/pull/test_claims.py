# SPDX-License-Identifier: Apache-2.0
"""Whose files are whose, and when nobody will come back for them."""

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

from intergiro_provider.pull import claims
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
        pull = claims.new_pull_id()
        for suffix in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"):
            part = claims.part_name(12345678, pull, suffix)
            assert claims.pull_of(part) == claims.pull_of(claims.staged_name(part)) == pull
            assert (claims.is_unpublished(part), claims.is_unpublished(claims.staged_name(part))) == (False, True)
        assert claims.pull_of(claims.manifest_on_its_way(pull)) == pull
        assert claims.claimed_by(claims.claim_name(pull)) == pull

    def test_the_names_that_users_rely_on(self) -> None:
        assert claims.part_name(0, "<pull id>", ".jsonl.gz") == "part-00000-<pull id>.jsonl.gz"

    def test_pulls_sort_by_their_beginning(self) -> None:
        ids = [claims.new_pull_id() for _ in range(100)]
        assert ids == sorted(ids)
        assert len(set(ids)) == 100

    @pytest.mark.parametrize(
        "name",
        ["_manifest.json", "part-0.jsonl", "_SUCCESS", "",
         "part-0-20260101T000000000000-0123abcd.csv", "part-0-20260101T000000000000-0123abcd.jsonl.bak",
         "xpart-0-20260101T000000000000-0123abcd.jsonl", "_part-0-20260101T000000000000-0123abcd.jsonl"],
    )  # fmt: skip
    def test_other_names_are_not(self, name: str) -> None:
        assert claims.pull_of(name) is None
        assert claims.claimed_by(name) is None


class TestDeadClaims:
    def test_a_running_process_lives(self) -> None:
        assert not claims.is_dead(claims.new_pull_id(), claims.write_claim("dag.task"), LATER, "dag.other")
        assert not claims.is_dead(claims.new_pull_id(), claims.write_claim(""), LATER, "")

    def test_an_earlier_try_of_the_same_task_is_dead(self) -> None:
        earlier, later = claims.new_pull_id(), claims.new_pull_id()
        assert claims.is_dead(earlier, claims.write_claim("dag.task"), later, "dag.task")
        assert not claims.is_dead(later, claims.write_claim("dag.task"), earlier, "dag.task")

    def test_a_process_of_this_machine_that_is_gone_is_dead(self) -> None:
        child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        claim = json.loads(claims.write_claim("")) | {"pid": int(child.stdout)}
        assert claims.is_dead(claims.new_pull_id(), json.dumps(claim).encode(), LATER, "")
        elsewhere = claim | {"host": "elsewhere/boot/pid:[1]"}
        assert not claims.is_dead(claims.new_pull_id(), json.dumps(elsewhere).encode(), LATER, "")

    def test_a_process_of_another_user_lives(self) -> None:
        claim = json.loads(claims.write_claim("")) | {"pid": 1}
        assert not claims.is_dead(claims.new_pull_id(), json.dumps(claim).encode(), LATER, "")

    @pytest.mark.parametrize("content", [claims.write_claim("dag.task"), b"[]", b'{"pid": "x"}'])
    def test_a_claim_more_than_a_day_old_is_dead(self, content: bytes) -> None:
        assert claims.is_dead(pull_id(timedelta(hours=25)), content, LATER, "other")
        assert not claims.is_dead(pull_id(timedelta(hours=23)), content, LATER, "other")

    @pytest.mark.parametrize("content", [b"", claims.write_claim("dag.task")[:-5], b"\xff"])
    def test_half_a_claim_is_dead(self, content: bytes) -> None:
        assert claims.is_dead(claims.new_pull_id(), content, LATER, "other")

    def test_a_name_that_holds_no_date_is_never(self) -> None:
        assert not claims.is_dead("99999999T999999999999-0123abcd", b"", LATER, "")

    def test_who_it_is(self) -> None:
        assert claims.describe_claim(claims.write_claim("dag.task")) == "dag.task"
        assert claims.describe_claim(claims.write_claim("")).startswith(f"process {os.getpid()} on ")
        assert claims.describe_claim(b"torn") == "process ? on ?"


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
