# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from intergiro_provider.session.lock_file import LockFile


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_one_at_a_time() -> None:
    first, second, other = LockFile("session"), LockFile("session"), LockFile("another")

    assert first.try_acquire()
    assert not second.try_acquire()
    assert other.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()
    assert os.path.exists(first.path)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import tempfile, time
        tempfile.tempdir = {str(tmp_path)!r}
        from intergiro_provider.session.lock_file import LockFile
        lock = LockFile("session")
        assert lock.try_acquire()
        print("held", flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not LockFile("session").try_acquire()
        process.kill()
        process.wait()
        lock = LockFile("session")
        assert lock.try_acquire()
        lock.release()


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import os, signal, tempfile, time
        tempfile.tempdir = {str(tmp_path)!r}
        from intergiro_provider.session.lock_file import LockFile
        lock = LockFile("session")
        assert lock.try_acquire()
        if os.fork() == 0:
            print("forked", os.getpid(), flush=True)
            time.sleep(600)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[1])
        try:
            assert not LockFile("session").try_acquire()
            parent.kill()
            parent.wait()
            lock = LockFile("session")
            assert lock.try_acquire()
            lock.release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_release_frees_the_lock_and_its_descriptor_though_a_forked_child_has_a_copy() -> None:
    lock = LockFile("session")
    assert lock.try_acquire()
    descriptor = lock._descriptor or 0
    copy = os.dup(descriptor)  # as in a child that was just forked
    lock.release()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert LockFile("session").try_acquire()
    os.close(copy)


def test_a_file_that_was_replaced_meanwhile_is_not_the_lock() -> None:
    first = LockFile("session")
    assert first.try_acquire()
    os.unlink(first.path)
    second = LockFile("session")

    assert second.try_acquire()
    assert os.fstat(second._descriptor or 0).st_ino == os.stat(second.path).st_ino
    first.release()
    second.release()


def test_a_file_that_was_replaced_after_it_was_opened_is_not_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    late = LockFile("session")
    opened = late._open_file

    def open_then_replace() -> int | None:
        descriptor = opened()
        os.unlink(late.path)
        with open(late.path, "w"):
            return descriptor

    with monkeypatch.context() as replaced:
        replaced.setattr(late, "_open_file", open_then_replace)
        assert not late.try_acquire()
    assert late.try_acquire()
    late.release()


def test_a_forked_child_closes_no_file_of_its_own_by_its_parents_lock() -> None:
    lock = LockFile("session")
    assert lock.try_acquire()
    child = os.fork()
    if child == 0:
        # The number of the lock's descriptor was free in the child, and is used for this file now.
        own = os.open(os.devnull, os.O_RDONLY)
        lock.release()
        os._exit(0 if own == os.dup2(own, own) and os.fstat(own) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not LockFile("session").try_acquire()
    lock.release()


def test_a_forked_child_closes_no_file_by_a_lock_that_was_released() -> None:
    lock = LockFile("session")
    assert lock.try_acquire()
    descriptor = lock._descriptor
    lock.release()
    own = os.open(os.devnull, os.O_RDONLY)
    assert own == descriptor
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.fstat(own)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    os.close(own)
    assert os.waitstatus_to_exitcode(status) == 0


def test_where_no_file_can_be_opened_everybody_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    lock = LockFile("session")

    assert lock.try_acquire()
    lock.release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    lock = LockFile("session")
    target = tmp_path / "target"
    os.symlink(target, lock.path)

    assert lock.try_acquire()
    lock.release()
    assert not target.exists()
