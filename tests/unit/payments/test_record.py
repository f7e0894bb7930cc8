# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StorageError
from intergiro_provider.payments.record import Record, last_in_flight
from intergiro_provider.pull.directory import Directory

COMPLETE: dict[str, Any] = {"kind": "payment", "state": "planned", "key": "k", "sha256": "d", "attempts": []}


def record(path: Path) -> Record:
    return Record(Directory(fsspec.filesystem("file"), str(path)), "n")


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    one = record(tmp_path / "new")
    assert (one.state, one.content) == ("", {})
    one.save(**COMPLETE)
    one.save(state="sent")
    other = record(tmp_path / "new")
    assert (other.state, other.content["key"], other.content["revision"]) == ("sent", "k", 2)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"payment-n.json", "payment-n.json.2"}


@pytest.mark.parametrize("earlier", [0, 1])
def test_of_two_processes_one_goes_on(tmp_path: Path, earlier: int) -> None:
    if earlier:
        record(tmp_path).save(**COMPLETE)
    one, other = record(tmp_path), record(tmp_path)
    one.save(**COMPLETE)
    with pytest.raises(IntergiroError, match="Another process works on the same payment"):
        other.save(state="sent")
    assert record(tmp_path).content["revision"] == earlier + 1


def test_on_an_object_store_one_of_two_creates_it() -> None:
    fs = fsspec.filesystem("memory")
    one, other = (Record(Directory(fs, "/payments"), "m") for _ in range(2))
    one.save(state="planned")
    other.content = {}
    with pytest.raises(IntergiroError, match="Another process"):
        other.save(state="planned")


@pytest.mark.parametrize("place", ["memory", "file", "file without links"])
def test_one_of_two_changes_it_where_locks_do_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    fs, root = fsspec.filesystem(place.split()[0]), f"{tmp_path}/payments"
    if "without" in place:

        def refused(*arguments: Any) -> None:
            raise PermissionError(errno.EPERM, "no links here")

        monkeypatch.setattr("os.link", refused)
    Record(Directory(fs, root), "c").save(**COMPLETE)
    one, other = (Record(Directory(fs, root), "c") for _ in range(2))
    seen = other.content
    monkeypatch.setattr(other, "_load", lambda: seen)  # as if it had read just before the other one writes
    one.save(state="sent")
    with pytest.raises(IntergiroError, match="Another process"):
        other.save(state="sent")
    one.save(state="confirmed")
    assert Record(Directory(fs, root), "c").content == one.content
    assert not any(name.endswith(".tmp") for name in Directory(fs, root).names())


def test_on_an_object_store_the_newest_revision_counts_although_its_copy_is_missing() -> None:
    fs = fsspec.filesystem("memory")
    one = Record(Directory(fs, "/payments"), "o")
    one.save(**COMPLETE)
    planned = fs.cat_file("/payments/payment-o.json")
    one.save(state="sent")
    fs.pipe_file("/payments/payment-o.json", planned)  # as if the process had been killed between the two writes
    assert Record(Directory(fs, "/payments"), "o").state == "sent"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', "null"])
def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "payment-n.json").write_text(content)
    with pytest.raises(IntergiroValueError, match="is not a complete payment record"):
        record(tmp_path)


@pytest.mark.parametrize("missing", ["revision", "key", "sha256", "kind", "attempts"])
def test_an_edited_record_without_a_required_field_is_refused(tmp_path: Path, missing: str) -> None:
    record(tmp_path).save(**COMPLETE)
    file = tmp_path / "payment-n.json"
    content = json.loads(file.read_text())
    del content[missing]
    file.write_text(json.dumps(content))
    with pytest.raises(IntergiroValueError, match=r"payment-n.json is not a complete payment record.*Restore the file"):
        record(tmp_path)


def test_what_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = record(tmp_path)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError):
        one.save(state="planned")
    assert one.state == ""
    assert not (tmp_path / "payment-n.json").exists()


def test_without_a_directory_nothing_is_kept() -> None:
    one = Record(None, "n")
    one.save(state="sent")
    assert (one.is_kept, one.state) == (False, "sent")
    assert json.dumps(one.content)


def test_settling_begins_when_the_last_request_ended_or_this_process_began() -> None:
    began = datetime(2026, 1, 1, 12, tzinfo=UTC)
    ended = {"sent_at": "2026-01-01T10:00:00+00:00", "ended_at": "2026-01-01T10:07:00+00:00"}
    assert last_in_flight([ended], began) == datetime(2026, 1, 1, 10, 7, tzinfo=UTC)
    assert last_in_flight([ended, {"sent_at": "2026-01-01T11:00:00+00:00"}], began) == began
    assert last_in_flight([{**ended, "outcome": "consent required"}], began) == began
    assert last_in_flight([], began) == began
