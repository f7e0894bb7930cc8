# SPDX-License-Identifier: Apache-2.0
"""The local disk fails while a pull writes to it: the rows of the table."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import StorageError
from intergiro_provider.sandbox import Sandbox
from tests.integration.storage.places import Folder, only_published
from tests.integration.storage.table import ROWS
from tests.integration.storage.trial import check_rows, publish_former, pull, trial

pytestmark = pytest.mark.integration

IN_FOUR: dict[str, Any] = {"max_parallel_windows": 4, "query": {"limit": 20}}


def mount(*arguments: str) -> None:
    """Run mount. Skip the test if that is not allowed."""
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root mounts file systems")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[None]:
    """Mount a file system of this size at this path."""
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=20)


def in_the_middle(bank: Sandbox, step: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `step` after 30 pages."""
    from intergiro_provider.pull.pull import Pull

    pages: list[int] = []
    request_page = Pull._page

    def page(*arguments: Any) -> bytes:
        pages.append(1)
        if len(pages) == 30:
            step()
        return request_page(*arguments)

    monkeypatch.setattr(Pull, "_page", page)


def test_disk_full(bank: Sandbox, tmp_path: Path) -> None:
    """The disk has space for the previous result and half of the new one."""
    with small_disk(tmp_path / "disk", 340):
        place = Folder(tmp_path / "disk" / "lake")
        publish_former(place, bank)

        def end() -> None:
            mount("-o", "remount,size=4096k", str(tmp_path / "disk"))

        error = trial(ROWS["disk_full"], place, bank, end, **IN_FOUR)
        assert str(place.path) in str(error)


def test_disk_read_only(bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(tmp_path / "disk", 4096):
        place = Folder(tmp_path / "disk" / "lake")
        publish_former(place, bank)
        # Lazily, because the pull has open files there.
        in_the_middle(
            bank, lambda: mount("--bind", "-o", "ro", str(tmp_path / "disk"), str(tmp_path / "disk")), monkeypatch
        )
        try:
            with pytest.raises(StorageError, match=ROWS["disk_read_only"].reads):
                pull(place, **IN_FOUR)
            check_rows(place, bank, ROWS["disk_read_only"])
        finally:
            subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True, timeout=20)
        monkeypatch.undo()
        pull(place)
        assert only_published(place)[1] == bank.records()


def test_directory_removed(bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Folder(tmp_path / "lake")
    publish_former(place, bank)
    bank.set(latency=0.01)
    with monkeypatch.context() as patch:
        in_the_middle(bank, lambda: shutil.rmtree(place.path), patch)
        trial(ROWS["directory_removed"], place, bank, patch.undo, **IN_FOUR)


def test_no_rights(bank: Sandbox, tmp_path: Path) -> None:
    """In a process of another user, because root can write everywhere."""
    row, place = ROWS["no_rights"], Folder(tmp_path / "lake")
    publish_former(place, bank)
    bank.reset_counters()
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o1 == 0 and os.getuid() == 0 and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o1)
    place.path.chmod(0o555)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            pull(place)
        except StorageError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        text = said.read().decode()
    os.waitpid(child, 0)
    place.path.chmod(0o755)
    assert row.reads in text
    assert f"{place.path}/_pull-" in text
    assert bank.counters().requests == 0
    check_rows(place, bank, row)
    pull(place)
    assert only_published(place)[1] == bank.records()
