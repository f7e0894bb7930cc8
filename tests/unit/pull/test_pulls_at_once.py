# SPDX-License-Identifier: Apache-2.0
"""Two pulls into one directory do not mix."""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, pages_of, record
from tests.unit.pull.pulling import FORMER, NEW, Store, lines, pull, store
from tests.unit.pull.stores import Hooked, ObjectStore, Slow, check_only_result

__all__ = ["store"]  # a fixture


class TestTwoAtOnce:
    """Two pulls into one directory: one fails, or its result is complete."""

    def during(self, store: Store, step: Callable[[], Any], owner: str = "") -> Manifest:
        """Pull, and call a function after the second page."""
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
        assert re.search(r"Another pull \(.*, of dag.slow\) writes", caplog.text)

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
        """A worker that Airflow has lost continues during the retry of its task, or after it."""
        retry = ListInMemory([record(n, retry=True) for n in range(12)])
        with pytest.raises(IntergiroError, match="lock file"):
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
            with pytest.raises(IntergiroError, match="lock file"):
                late.commit(manifest)
            late.abandon()

        late = Target(Directory(*store), "dag.task run")
        late.begin()
        manifest = self.empty_manifest(late)
        self.during(store, wake_up, owner="dag.task run")
        assert check_only_result(*store)[1] == lines(NEW)

    def test_a_late_manifest_of_a_try_that_was_taken_for_dead(self, store: Store) -> None:
        """The first try was paused between its last check and its PUT. A retry replaces its manifest."""
        fs, root = store
        pull(*store, FORMER)
        late = Target(Directory(*store), "dag.task run")
        late.begin()
        manifest = self.empty_manifest(late)
        self.during(store, lambda: fs.pipe_file(f"{root}/_manifest.json", manifest.to_json()), owner="dag.task run")
        assert check_only_result(fs, root)[1] == lines(NEW)

    def test_a_commit_in_the_midst_of_anothers_sweep(self) -> None:
        """Both have read the same manifest before either has replaced it. The later result is complete."""
        fs, root = ObjectStore(), "/lake/transactions"
        pull(fs, root, FORMER)
        later = ListInMemory([record(n, later=True) for n in range(12)])
        has_looked, may_replace = threading.Event(), threading.Event()

        def wait() -> None:
            has_looked.set()
            may_replace.wait(120)

        other = Target(Directory(Hooked(fs, ("pipe_file", "/_manifest.json"), wait), root))
        thread = threading.Thread(target=Pull(PullRequest(endpoint="x"), pages_of(later), other).run)

        def start_the_other() -> None:
            thread.start()
            has_looked.wait(120)

        def let_it_replace() -> None:
            may_replace.set()
            thread.join(120)

        before_replacing = Hooked(fs, ("pipe_file", "/_manifest.json"), start_the_other)
        pull(Hooked(before_replacing, ("cat_file", f"/_pull-{other.pull_id}"), let_it_replace), root, NEW)
        assert check_only_result(fs, root)[1] == lines(later)

    @pytest.mark.parametrize("seed", range(8))
    def test_many_at_once_in_every_order(self, store: Store, seed: int) -> None:
        """Threads with file system operations in random order. Some are retries of others."""
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
            thread.join(120)
        assert surprises == []
        assert True in outcomes
        assert check_only_result(fs, root)[1] in map(lines, banks)
