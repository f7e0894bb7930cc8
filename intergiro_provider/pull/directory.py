# SPDX-License-Identifier: Apache-2.0
"""One directory on any fsspec file system, with the few operations that a pull needs, made dependable.

Names are plain file names in the directory. Nothing here knows what they mean.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

_UPLOAD_BLOCK = 8 << 20  # what an object store's client keeps in memory per open file; some take 50 MiB by default
_LOCK_WAIT = 60.0  # seconds; the lock is held for a few renames
_LOCK_POLL = 0.05
# A place there needs no making, and asking for it could make a bucket of a name that was mistyped.
_STORES_WITHOUT_DIRECTORIES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})


class FileSink:
    """A file that is being written: counts and hashes what goes in.

    Not for a ``with`` block: on an object store, leaving that on an exception would store the half that is
    there.
    """

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._sync = getattr(fs, "local_file", False)
        self._file = fs.open(path, "wb", block_size=_UPLOAD_BLOCK)

    def write(self, data: bytes) -> None:
        """Append; the caller sees to it that the pieces are large."""
        if data:
            self._file.write(data)
            self._hash.update(data)
            self.bytes += len(data)

    def close(self) -> str:
        """Make the file durable; return the hex digest of its bytes."""
        if self._sync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Let go of the file, however far it is. Never raises; the half that is there is for the caller to delete."""
        try:
            self._file.close()
        except Exception:  # noqa: S110 - the caller is on its way out with a better error
            pass


class Directory:
    """A directory, which need not exist yet.

    :param fs: the file system. :param root: the directory's path on it, with or without protocol.
    """

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = str(fs._strip_protocol(root)).rstrip("/")
        self.local = bool(getattr(fs, "local_file", False))
        """Whether files can be renamed in one step, and :meth:`lock` excludes others."""

    def __str__(self) -> str:
        return self._root

    def make(self) -> None:
        """Create the directory where the file system has directories.

        :raises IntergiroValueError: there is a file of that name.
        """
        protocols = self._fs.protocol
        if not _STORES_WITHOUT_DIRECTORIES.isdisjoint([protocols] if isinstance(protocols, str) else protocols):
            return
        try:
            self._fs.makedirs(self._root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise IntergiroValueError(
                f"`path` has to be a directory, but {self._root} is, or lies below, a file"
            ) from None

    def names(self) -> list[str]:
        """What is in the directory now, without what a client remembers of it."""
        self._fs.invalidate_cache(self._root)
        try:
            found = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def read(self, name: str) -> bytes | None:
        """A small file whole; None if there is none."""
        try:
            content: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def create(self, name: str) -> FileSink:
        """Begin a file, replacing what has that name."""
        return FileSink(self._fs, self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file. Killed in the middle, it may leave a piece of it, on a local file system."""
        self._fs.pipe_file(self._path(name), content)

    def replace(self, name: str, content: bytes, temporary: str) -> None:
        """Write a small file so that a reader finds the old content or the new, and never a piece.

        :param temporary: a name to use on the way, on a file system that can rename but not put.
        """
        if not self.local:
            self._fs.pipe_file(self._path(name), content)  # an object store shows an object when it is whole
            return
        sink = self.create(temporary)
        try:
            sink.write(content)
            sink.close()
        except BaseException:
            sink.abort()
            raise
        self.rename(temporary, name)
        self._sync_entries()

    def rename(self, name: str, new_name: str) -> None:
        """Move a file within the directory, replacing what has that name; on a local file system in one step."""
        self._fs.mv(self._path(name), self._path(new_name))

    def delete(self, name: str) -> None:
        """Delete a file; fine if it is gone already."""
        try:
            self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude every other holder of this lock, processes and threads, where the file system is local;
        else nothing.

        The lock lies on the directory itself, so no file is left behind, and the kernel frees it when its
        holder dies.

        :raises IntergiroError: another holder kept it for a minute.
        """
        if not self.local:
            yield
            return
        handle = os.open(self._root, os.O_RDONLY)
        try:
            self._acquire(handle)
            yield
        finally:
            os.close(handle)

    def _acquire(self, handle: int) -> None:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise IntergiroError(
                        f"another task has been publishing to {self._root} for {_LOCK_WAIT:.0f} s; try "
                        "again when it has ended"
                    ) from None
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    return  # a network file system that cannot lock a directory: as safe as an object store, then
                raise
            time.sleep(_LOCK_POLL)

    def _sync_entries(self) -> None:
        handle = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:
            pass  # some file systems cannot; the rename is as durable as they make it
        finally:
            os.close(handle)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
