# SPDX-License-Identifier: Apache-2.0
"""File systems to publish to, faults in each of their operations, and the invariants of a directory."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem


class ObjectStore(MemoryFileSystem):
    """A separate object store in memory. It has no lock and no rename, only copy and delete."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


class Failing:
    """A file system whose operations can fail.

    :param at: the number of the operation that fails, from 0; None: none fails.
    :param once: whether later operations work again. If not, it is as if the process had been killed.
    :param after: whether the operation is carried out before it fails, as if its response were lost.
    """

    OPERATIONS = frozenset({"makedirs", "open", "pipe_file", "cat_file", "ls", "mv", "rm_file", "write", "close"})

    def __init__(self, fs: AbstractFileSystem, at: int | None, *, once: bool = True, after: bool = False) -> None:
        self._fs = fs
        self._at = at
        self._once = once
        self._after = after
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._fs, name)
        return self.failing(name, attribute) if name in self.OPERATIONS else attribute

    def failing(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            number, self.count = self.count, self.count + 1
            fails = self._at is not None and (number == self._at or (number > self._at and not self._once))
            if fails and not (self._after and number == self._at):
                raise OSError(28, f"No space left on device ({name})")
            result = function(*args, **kwargs)
            if fails:
                raise OSError(5, f"The answer was lost ({name})")
            return _FailingFile(self, result) if name == "open" else result

        return call


class _FailingFile:
    def __init__(self, fs: Failing, file: Any) -> None:
        self._fs = fs
        self._file = file

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._file, name)
        return self._fs.failing(name, attribute) if name in Failing.OPERATIONS else attribute


class Hooked:
    """A file system that calls a function before or after the first operation of a kind on a file.

    :param where: the operation, and a part of the path.
    :param step: the function.
    :param after: whether to call it after the operation.
    """

    def __init__(self, fs: Any, where: tuple[str, str], step: Callable[[], object], *, after: bool = False) -> None:
        self._fs = fs
        self._operation, self._piece = where
        self._steps = [step]
        self._after = after

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._fs, name)
        if name != self._operation:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            step = self._steps.pop() if self._steps and self._piece in " ".join(map(str, args[:2])) else None
            if step and not self._after:
                step()
            result = attribute(*args, **kwargs)
            if step and self._after:
                step()
            return result

        return call


class Slow:
    """A file system that lets other threads run before and after each operation, to mix their steps."""

    def __init__(self, fs: AbstractFileSystem, pauses: Iterator[float]) -> None:
        self._fs = fs
        self._pauses = pauses
        self._event = threading.Event()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._fs, name)
        if name not in Failing.OPERATIONS:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            self._event.wait(next(self._pauses))
            result = attribute(*args, **kwargs)
            self._event.wait(next(self._pauses))
            return result

        return call


def names(fs: AbstractFileSystem, root: str) -> list[str]:
    """Return the names of all files in a directory."""
    return sorted(path.rpartition("/")[2] for path in fs.ls(root, detail=False))


def check_result(fs: AbstractFileSystem, root: str) -> tuple[dict[str, Any], bytes]:
    """Check that the manifest and each of its parts are complete. Return the manifest and the bytes of the parts."""
    manifest = json.loads(fs.cat_file(f"{root}/_manifest.json"))
    content = b""
    for part in manifest["parts"]:
        stored = fs.cat_file(f"{root}/{part['path']}")
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (part["bytes"], part["sha256"])
        content += stored
    assert manifest["bytes"] == len(content)
    assert manifest["rows"] == sum(part["rows"] for part in manifest["parts"]) == content.count(b"\n")
    return manifest, content


def check_only_result(fs: AbstractFileSystem, root: str) -> tuple[dict[str, Any], bytes]:
    """Like :func:`check_result`, and check that there is no other file."""
    manifest, content = check_result(fs, root)
    assert names(fs, root) == sorted(["_manifest.json", *(part["path"] for part in manifest["parts"])])
    return manifest, content


class BrokenAt:
    """A file system that fails one kind of operation on one kind of file."""

    def __init__(self, fs: Any, operation: str, piece: str) -> None:
        self._fs, self._operation, self._piece = fs, operation, piece

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._fs, name)
        if name != self._operation:
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._piece in str(args[0]):
                raise OSError(28, "no space")
            return attribute(*args, **kwargs)

        return call


def broken_commit(fs: Any) -> BrokenAt:
    """A file system on which no manifest can be published."""
    return BrokenAt(fs, "pipe_file" if isinstance(fs, ObjectStore) else "mv", "_manifest")
