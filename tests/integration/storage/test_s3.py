# SPDX-License-Identifier: Apache-2.0
"""IntergiroToObjectStorageOperator to an S3-compatible server, with an Airflow connection, over real sockets."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError, StorageError
from intergiro_provider.pull.directory import Directory, FileSink
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.target import Target
from intergiro_provider.sandbox import Sandbox
from tests.integration.storage import s3
from tests.integration.storage.conftest import forget_stores
from tests.integration.storage.places import MANIFEST, Place, only_published, published
from tests.integration.storage.rights import RIGHTS, grant
from tests.integration.storage.s3 import Lake
from tests.integration.storage.trial import execute_in_thread, pull, transfer
from tests.integration.storage.wire import Request, Wire

pytestmark = pytest.mark.integration

SMALL_BLOCK = 5 << 20
"""The smallest size of a piece of an upload to S3, in bytes."""


class TestResult:
    @pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
    def test_every_record_once_byte_for_byte(self, bank: Sandbox, lake: Lake, compression: str | None) -> None:
        place = lake.place("transactions/2026-01-01")
        manifest = pull(place, compression=compression)
        stored, records = only_published(place)
        assert (stored, records) == (manifest, bank.records())

    @pytest.mark.parametrize("windows", [4, 16])
    def test_several_windows(self, bank: Sandbox, lake: Lake, windows: int) -> None:
        bank.set(latency=0.01)
        place = lake.place("transactions")
        manifest = pull(place, max_parallel_windows=windows, query={"limit": 10})
        assert only_published(place)[1] == bank.records()
        assert len(manifest["parts"]) > 1

    def test_a_rerun_replaces(self, bank: Sandbox, lake: Lake) -> None:
        place = lake.place("transactions")
        first = pull(place)
        second = pull(place, compression="gzip")
        assert first["pull_id"] != second["pull_id"]
        assert only_published(place)[0] == second

    def test_nothing_there(self, bank: Sandbox, lake: Lake) -> None:
        place = lake.place("transactions")
        pull(place)
        manifest = pull(place, created_from="1999-01-01", created_to="1999-01-02")
        assert (manifest["parts"], manifest["rows"]) == ([], 0)
        assert place.names() == {MANIFEST}

    @pytest.mark.parametrize(
        "prefix",
        ["", "deep/er/and/deeper", "dt=2026-01-01/a b+c%20d&e", "å/日本", "[x]*", "with?question", "x;y,z'(1)!~"],
    )
    def test_any_name_for_a_directory(self, bank: Sandbox, lake: Lake, prefix: str) -> None:
        place = lake.place(prefix)
        pull(place)
        pull(place, max_parallel_windows=2)
        assert only_published(place)[1] == bank.records()

    def test_other_directories_are_left_alone(self, bank: Sandbox, lake: Lake) -> None:
        """Directories with the same beginning, subdirectories, and the marker object that the console of S3 creates."""
        place = lake.place("transactions")
        pull(place)
        part = pull(lake.place("elsewhere"))["parts"][0]
        others = {
            "transactions/": b"", f"transactions2/{part['path']}": b"mine", f"transactions/sub/{part['path']}": b"mine",
            f"transactions/{part['path']}/x": b"mine", "transactions/notes.txt": b"mine",
        }  # fmt: skip
        for key, content in others.items():
            lake.client.put_object(Bucket=lake.bucket, Key=key, Body=content)
        manifest = pull(place)
        for key, content in others.items():
            assert lake.client.get_object(Bucket=lake.bucket, Key=key)["Body"].read() == content
        own = {name for name in place.names() if f"transactions/{name}" not in others}
        assert own == {MANIFEST, *(part["path"] for part in manifest["parts"])}

    def test_a_directory_of_more_than_a_page_of_names(self, bank: Sandbox, lake: Lake) -> None:
        """S3 lists a thousand objects per response. The files of a killed pull are after them."""
        place = lake.place("transactions")
        for number in range(1005):
            lake.client.put_object(Bucket=lake.bucket, Key=f"transactions/0-{number:04d}.txt", Body=b"")
        left = "part-00000-20200101T000000000000-00000000.jsonl"
        for name in (left, f"_{left}.tmp"):
            lake.client.put_object(Bucket=lake.bucket, Key=f"transactions/{name}", Body=b"left")
        manifest = pull(place)
        assert published(place)[1] == bank.records()
        ours = {name for name in place.names() if not name.startswith("0-")}
        assert ours == {MANIFEST, *(part["path"] for part in manifest["parts"])}

    def test_credentials_are_the_connections(self, bank: Sandbox, lake: Lake, wire: Wire) -> None:
        pull(lake.place("transactions"))
        assert {request.user for request in wire.seen} == {s3.KEY}


def directory(place: Place) -> Directory:
    """Return the directory object of a pull."""
    path = ObjectStoragePath(place.url)
    return Directory(path.fs, path.path)


def begin(place: Place, size: int) -> tuple[FileSink, bytes]:
    """Return a part with this number of bytes, and these bytes."""
    sink = directory(place).create("_part.tmp")
    content = os.urandom(size)
    for start in range(0, size, 1 << 20):
        sink.write(content[start : start + (1 << 20)])
    return sink, content


class TestLargeParts:
    """Parts that S3's client sends in several pieces."""

    @pytest.fixture(autouse=True)
    def small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("intergiro_provider.pull.directory._UPLOAD_BLOCK", SMALL_BLOCK)

    def test_are_whole_and_leave_no_upload_behind(self, lake: Lake) -> None:
        place = lake.place("transactions")
        sink, content = begin(place, 12 << 20)
        sink.close()
        assert place.read("_part.tmp") == content
        assert place.uploads() == []
        directory(place).rename("_part.tmp", "part")
        assert place.names() == {"part"}
        assert place.read("part") == content

    @pytest.mark.parametrize("size", [1 << 20, 12 << 20])
    def test_that_are_given_up_are_never_seen(self, lake: Lake, size: int) -> None:
        place = lake.place("transactions")
        sink, _ = begin(place, size)
        assert len(place.uploads()) == (size > SMALL_BLOCK)
        sink.abort()
        del sink  # fsspec closes collected files, and so stores them
        assert (place.names(), place.uploads()) == (set(), [])

    def test_abort_during_a_write(self, lake: Lake, wire: Wire) -> None:
        """Another thread aborts without waiting. The writer aborts the upload after its write."""
        place = lake.place("transactions")
        arrived, go_on = threading.Event(), threading.Event()

        def hold(request: Request) -> None:
            if request.operation == "upload part":
                arrived.set()
                go_on.wait(120)

        wire.before = hold
        sink = directory(place).create("_part.tmp")
        failures: list[Exception] = []

        def write() -> None:
            try:
                for _ in range(3):
                    sink.write(os.urandom(SMALL_BLOCK))
            except StorageError as error:
                failures.append(error)
            finally:
                sink.abort()

        writer = threading.Thread(target=write)
        writer.start()
        assert arrived.wait(120)
        sink.abort()
        assert place.uploads() == ["transactions/_part.tmp"]
        go_on.set()
        writer.join(120)
        assert [str(error) for error in failures] == [
            f"`path`: writing s3://{lake.bucket}/transactions/_part.tmp was aborted."
        ]
        assert (place.names(), place.uploads()) == (set(), [])


class TestNoBucket:
    def test_that_does_not_exist(self, bank: Sandbox, lake: Lake) -> None:
        with pytest.raises(
            IntergiroValueError, match="`path`: the bucket 'no-such-lake' of s3://no-such-lake/x does not exist"
        ):
            pull(lake.place("x", "no-such-lake"))
        assert bank.counters().requests == 0
        assert "no-such-lake" not in {found["Name"] for found in lake.client.list_buckets()["Buckets"]}

    def test_at_all(self, bank: Sandbox, lake: Lake) -> None:
        with pytest.raises(IntergiroValueError, match="`path` is .s3://lake@/x., which names no bucket"):
            pull("s3://lake@/x")
        assert bank.counters().requests == 0


class TestRights:
    """The server enforces what an IAM policy grants."""

    def test_those_that_the_docs_list_are_enough(
        self, bank: Sandbox, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = lake.place("in/transactions")
        with grant(lake, monkeypatch, RIGHTS, "in"):
            pull(place)
            pull(place, max_parallel_windows=4)
            begin(place, 9 << 20)[0].abort()
            begin(place, 9 << 20)[0].close()
            directory(place).delete("_part.tmp")
        assert place.uploads() == []
        assert only_published(place)[1] == bank.records()

    @pytest.mark.parametrize("missing", ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"])
    def test_each_is_needed(self, bank: Sandbox, lake: Lake, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        place = lake.place("in/transactions")
        former = pull(place, query={"statuses": ["pending"]})
        with (
            grant(lake, monkeypatch, RIGHTS - {missing}, "in"),
            pytest.raises(StorageError, match=r"`path`: .* s3://lake-.*/in/transactions.* failed: .*the rights"),
        ):
            pull(place)
        assert published(place)[0] == former
        pull(place)
        assert only_published(place)[1] == bank.records()

    def test_a_wrong_key(self, bank: Sandbox, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        with grant(lake, monkeypatch, set(), "in", key="nobody", secret="wrong"), pytest.raises(StorageError) as caught:
            pull(lake.place("in/transactions"))
        assert "wrong" not in str(caught.value)
        assert "nobody" not in str(caught.value)
        assert bank.counters().requests == 0


class TestTwoAtOnce:
    def test_the_first_to_finish_is_published(self, bank: Sandbox, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        """One pull has found no result, and is about to commit when the other publishes."""
        place = lake.place("transactions")
        failures: list[IntergiroError] = []
        about_to_commit, published_first = threading.Event(), threading.Event()
        commit = Target.commit

        def slow_commit(target: Target, manifest: Manifest) -> None:
            if not manifest.rows:
                about_to_commit.set()
                assert published_first.wait(120)
            commit(target, manifest)

        def slow() -> None:
            try:
                execute_in_thread(transfer(place, created_from="1999-01-01", created_to="1999-01-02"))
            except IntergiroError as error:
                failures.append(error)

        monkeypatch.setattr(Target, "commit", slow_commit)
        thread = threading.Thread(target=slow)
        thread.start()
        assert about_to_commit.wait(120)
        forget_stores(monkeypatch)  # as in another process, whose writes this client does not know
        quick = pull(place)
        published_first.set()
        thread.join(120)
        assert [type(error) for error in failures] == [IntergiroError]
        assert "two tasks write to one `path`" in str(failures[0])
        assert only_published(place) == (quick, bank.records())

    def test_a_failing_pull_leaves_the_former_result(
        self, bank: Sandbox, lake: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
        place = lake.place("transactions")
        former = pull(place)
        bank.fault("garbled", path="/v3/transactions", skip=3)
        with pytest.raises(IntergiroResponseError):
            pull(place)
        assert only_published(place) == (former, bank.records())


def test_after_a_fork(bank: Sandbox, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow forks a process for each task. The parent may have used the store."""
    pull(lake.place("parent"))
    place = lake.place("child")
    child = os.fork()
    if child == 0:
        code = 1
        forget_stores(monkeypatch)
        try:
            pull(place, max_parallel_windows=4)
            code = 0
        except BaseException as error:
            (tmp_path / "error").write_text(repr(error))
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, (tmp_path / "error").read_text()
    assert only_published(place)[1] == bank.records()
    assert json.loads(place.read(MANIFEST))["rows"] == len(bank.records())
