# SPDX-License-Identifier: Apache-2.0
"""One directory on any fsspec file system, with the few operations that a pull needs, made dependable.

Names are plain file names in the directory. Nothing here knows what they mean.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, StorageError
from intergiro_provider.pull.query import STORES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

_UPLOAD_BLOCK = 8 << 20  # what an object store's client keeps in memory per open file; some take 50 MiB by default
_LOCK_WAIT = 60.0  # seconds; the lock is held for a few renames
_LOCK_POLL = 0.05


@contextmanager
def _named(doing: str, where: str, local: bool) -> Iterator[None]:
    """Give an error of the file system its place and a remedy: an object store's own names neither.

    :raises StorageError: for any error of the file system but those that tell what is, or is not, there.
    """
    try:
        yield
    except (IntergiroError, FileNotFoundError, FileExistsError, NotADirectoryError):
        raise
    except Exception as error:
        if local and not isinstance(error, OSError):
            raise
        reason = str(error) or type(error).__name__
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            reason += "; free some space there"
        elif isinstance(error, PermissionError):
            reason += "; give the task's user, or its connection, the rights that a pull needs there"
        raise StorageError(f"`path`: {doing} {where} failed: {reason}") from error


class FileSink:
    """A file that is being written: counts and hashes what goes in.

    Not for a ``with`` block: on an object store, leaving that on an exception would store the half that is
    there.
    """

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._local = bool(getattr(fs, "local_file", False))
        self._where = path if self._local else str(fs.unstrip_protocol(path))
        self._lock = threading.Lock()
        self._at_work = self._let_go = self._is_over = False
        with _named("writing", self._where, self._local):
            self._file = fs.open(path, "wb", block_size=_UPLOAD_BLOCK)

    def write(self, data: bytes) -> None:
        """Append; the caller sees to it that the pieces are large.

        :raises StorageError: the file system could not.
        """
        if data:
            with self._working():
                self._file.write(data)
            self._hash.update(data)
            self.bytes += len(data)

    def close(self) -> str:
        """Make the file durable; return the hex digest of its bytes.

        :raises StorageError: the file system could not.
        """
        with self._working():
            if self._local:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            self._is_over = True
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Let go of the file, however far it is. Never raises, and never waits for a thread that is in the midst of a
        write: that one lets go when it is out of it.

        On a local file system the half that is there is for the caller to delete. On an object store there is none:
        what was sent so far is given up.
        """
        with self._lock:
            self._let_go = True
            if self._at_work:
                return
        self._discard()

    def _discard(self) -> None:
        from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

        if self._is_over:
            return
        self._is_over = True
        try:
            if isinstance(self._file, AbstractBufferedFile):
                try:
                    self._file.discard()
                finally:
                    self._file.closed = True  # else it would be stored when it is collected
            else:
                self._file.close()
        except Exception:  # noqa: S110 - whoever lets go is on the way out with a better error
            pass

    @contextmanager
    def _working(self) -> Iterator[None]:
        if self._is_let_go(at_work=True):
            raise StorageError(f"writing {self._where} was given up")
        try:
            with _named("writing", self._where, self._local):
                yield
        finally:
            if self._is_let_go(at_work=False):
                self._discard()

    def _is_let_go(self, at_work: bool) -> bool:
        """Whether somebody else has called :meth:`abort`; takes note of whether this thread is at work."""
        with self._lock:
            self._at_work = at_work and not self._let_go
            return self._let_go


class Directory:
    """A directory, which need not exist yet.

    :param fs: the file system. :param root: the directory's path on it, with or without protocol.
    """

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = str(fs._strip_protocol(root)).rstrip("/")
        self.local = bool(getattr(fs, "local_file", False))
        """Whether files can be renamed in one step, and :meth:`lock` excludes others."""
        protocols = fs.protocol
        # A place there needs no making, and asking for it could make a bucket of a name that was mistyped.
        self._is_store = not STORES.isdisjoint([protocols] if isinstance(protocols, str) else protocols)

    def __str__(self) -> str:
        return self._root if self.local else str(self._fs.unstrip_protocol(self._root))

    def make(self) -> None:
        """Create the directory where the file system has directories.

        :raises IntergiroValueError: there is a file of that name, or the place cannot be.
        """
        if self._is_store:
            if not self._root or self._root.startswith("/"):
                raise IntergiroValueError("`path` names no bucket: write it like s3://conn_id@bucket/directory")
            return
        try:
            with self._named("making", ""):
                self._fs.makedirs(self._root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise IntergiroValueError(
                f"`path` has to be a directory, but {self._root} is, or lies below, a file"
            ) from None
        except FileNotFoundError as error:  # such as below /proc
            raise StorageError(f"`path`: the directory {self._root} cannot be made: {error.strerror}") from error

    def names(self) -> list[str]:
        """What is in the directory now, without what a client remembers of it."""
        return list(self.sizes())

    def sizes(self) -> dict[str, int | None]:
        """The same, and of each its size in bytes; None where the file system does not say."""
        self._fs.invalidate_cache(self._root)
        try:
            with self._named("listing", ""):
                found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry.get("size") for entry in found}

    def read(self, name: str) -> bytes | None:
        """A small file whole, as it is now; None if there is none."""
        self._fs.invalidate_cache(self._root)  # some look into their last listing to tell whether a file is there
        try:
            with self._named("reading", name):
                content: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> BinaryIO:
        """Read a large file piece by piece."""
        self._fs.invalidate_cache(self._root)
        with self._named("reading", name):
            file: BinaryIO = self._fs.open(self._path(name), "rb", block_size=_UPLOAD_BLOCK)
        return file

    def create(self, name: str) -> FileSink:
        """Begin a file, replacing what has that name."""
        with self._present():
            return FileSink(self._fs, self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file. Killed in the middle, it may leave a piece of it, on a local file system."""
        with self._present(), self._named("writing", name):
            self._fs.pipe_file(self._path(name), content)

    def write_new(self, name: str, content: bytes) -> None:
        """Write a small file that does not exist yet; on an object store in one step.

        :raises FileExistsError: it exists.
        """
        with self._present(), self._named("writing", name):
            self._fs.pipe_file(self._path(name), content, mode="create")

    def replace(self, name: str, content: bytes, temporary: str) -> None:
        """Write a small file so that a reader finds the old content or the new, and never a piece.

        :param temporary: a name to use on the way, on a file system that can rename but not put.
        """
        if not self.local:
            self.write(name, content)  # an object store shows an object when it is whole
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
        old, new = self._path(name), self._path(new_name)
        with self._named("renaming", name):
            if not self._is_store:
                self._fs.mv(old, new)
                return
            # Their `mv` takes names for patterns, and says nothing about an original that it could not delete.
            self._fs.invalidate_cache(self._root)
            self._fs.cp_file(old, new)
            self._fs.rm_file(old)

    def delete(self, name: str) -> None:
        """Delete a file; fine if it is gone already."""
        try:
            with self._named("deleting", name):
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
        with self._present(), self._named("opening", ""):
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

    def _named(self, doing: str, name: str) -> AbstractContextManager[None]:
        return _named(doing, f"{self}/{name}" if name else str(self), self.local)

    @contextmanager
    def _present(self) -> Iterator[None]:
        """Say it where the directory, or the bucket, is not there."""
        try:
            yield
        except FileNotFoundError as error:
            if self._is_store:
                bucket = self._root.partition("/")[0]
                raise IntergiroValueError(f"`path`: there is no {bucket!r} to hold {self}; it has to exist") from error
            raise StorageError(f"`path`: {self} was removed while a pull wrote to it") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
