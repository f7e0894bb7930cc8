# SPDX-License-Identifier: Apache-2.0
"""A pull from the first page to the published manifest."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull.bounds import parse_interval
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from intergiro_provider.session.driver import SharedSession, finish_renewals
from intergiro_provider.session.effects import Renewer
from tests.unit.pull.lists import ListInMemory, page, pages_of, record
from tests.unit.pull.pulling import FORMER, NEW, Store, lines, pull, store
from tests.unit.pull.stores import Hooked, check_only_result, names
from tests.unit.session.memory import QUICK, MemoryStore, PlainBank

__all__ = ["store"]  # a fixture


class TestResult:
    def test_the_manifest_names_what_is_there(self, store: Store) -> None:
        fs, root = store
        manifest = pull(fs, root, NEW)
        stored, content = check_only_result(fs, root)
        assert content == lines(NEW)
        assert stored == manifest.to_dict()
        assert list(stored) == [
            "version", "pull_id", "endpoint", "parts", "rows", "bytes", "first_id", "last_id",
            "created_from", "created_to", "complete_until", "query", "schema", "provider_version",
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
        manifest = pull(fs, root, ListInMemory([record(n) for n in range(60)]), query={"limit": 7}, **self.REQUEST)
        assert (manifest.rows, manifest.first_id, manifest.last_id) == (10, "r00010", "r00019")

    def test_bounds_in_params_as_well_are_refused(self) -> None:
        with pytest.raises(IntergiroValueError, match="`created_from` is given twice"):
            PullRequest(endpoint="x", query={"created_from": "2026-01-01"}, **self.REQUEST)

    def test_bounds_in_params_alone_are_the_users_own(self, store: Store) -> None:
        bank = ListInMemory([record(1)])
        pull(*store, bank, query={"created_from": "2026-01-01"})
        assert bank.queries == [{"created_from": "2026-01-01", "limit": 100}]


class TestStopping:
    def test_stop_publishes_nothing(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []

        def stopping(query: dict[str, Any]) -> bytes:
            if query.get("starting_after"):
                running[0].stop()
            return NEW(query)

        request = PullRequest(endpoint="x", query={"limit": 5})
        running.append(Pull(request, pages_of(stopping), Target(Directory(fs, root))))
        with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def test_stop_during_the_last_page(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []

        def stopping(query: dict[str, Any]) -> bytes:
            running[0].stop()
            return page([record(1)], has_more=False)

        running.append(Pull(PullRequest(endpoint="x"), pages_of(stopping), Target(Directory(fs, root))))
        with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)

    def test_stop_after_the_last_page(self, store: Store) -> None:
        fs, root = store
        pull(fs, root, FORMER)
        running: list[Pull] = []
        hooked = Hooked(fs, ("open", "_part-00000"), lambda: running[0].stop(), after=True)
        running.append(Pull(PullRequest(endpoint="x"), pages_of(NEW), Target(Directory(hooked, root))))
        with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
            running[0].run()
        assert check_only_result(fs, root)[1] == lines(FORMER)


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


def test_a_renewal_under_way_is_not_left_half_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pull is stopped while one of its threads waits for the response to a refresh."""
    monkeypatch.setattr("intergiro_provider.pull.pull.STOP_WITHIN", 0.05)
    fs, root = store
    documents, bank = MemoryStore(str(tmp_path)), PlainBank()
    session = SharedSession(documents, bank, Renewer("k", name="host:1"), QUICK)
    first = session.current()
    bank.calling.clear()
    stopped = threading.Event()

    def refreshing() -> None:
        assert stopped.wait(60)
        time.sleep(0.3)

    def stop() -> None:
        assert bank.calling.wait(60)
        running.stop()
        stopped.set()

    bank.meanwhile = refreshing

    def renewing(query: dict[str, Any]) -> bytes:
        session.renew(first, "")
        return NEW(query)

    target = Target(Directory(fs, root))
    running = Pull(PullRequest(endpoint="x"), pages_of(renewing), target, after_failure=finish_renewals)
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(IntergiroError, match="stopped"):
        running.run()
    stopper.join()
    assert bank.refreshes == 1
    assert documents.documents["session"].gen == first.gen + 1
