# SPDX-License-Identifier: Apache-2.0
"""A directory on any fsspec file system, with the reliable operations that a pull needs.

Names are plain file names in the directory. What they mean is in :mod:`.names`.
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
from intergiro_provider.pull.arguments import STORES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

_UPLOAD_BLOCK = 8 << 20  # bytes that an object store's client buffers per open file; the default of some is 50 MiB
_LOCK_WAIT = 60.0  # seconds; the lock is held for a few renames
_LOCK_POLL = 0.05
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # such as FAT, SMB and some FUSE file systems


@contextmanager
def _explained(doing: str, where: str, local: bool) -> Iterator[None]:
    """Add the place and a remedy to an error of the file system. The errors of an object store name neither.

    :raises StorageError: for every error except those that say whether a file or directory exists.
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
            reason += ". Free some space there"
        elif isinstance(error, PermissionError):
            reason += ". Give the task's user, or its connection, the rights that a pull needs there"
        raise StorageError(f"`path`: {doing} {where} failed: {reason}.") from error


class FileSink:
    """A file that is being written. Counts and hashes its bytes.

    Do not use it in a ``with`` block: on an object store, an exception would store the incomplete file.
    """

    def __init__(self, fs: AbstractFileSystem, path: str) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._local = bool(getattr(fs, "local_file", False))
        self._where = path if self._local else str(fs.unstrip_protocol(path))
        self._lock = threading.Lock()
        self._is_writing = self._aborted = self._closed = False
        with _explained("writing", self._where, self._local):
            self._file = fs.open(path, "wb", block_size=_UPLOAD_BLOCK)

    def write(self, data: bytes) -> None:
        """Append bytes. Large blocks are faster.

        :raises StorageError: the file system has failed.
        """
        if data:
            with self._writing():
                self._file.write(data)
            self._hash.update(data)
            self.bytes += len(data)

    def close(self) -> str:
        """Close the file, so that it survives a crash; return the hex digest of its bytes.

        :raises StorageError: the file system has failed.
        """
        with self._writing():
            if self._local:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            self._closed = True
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Close the file without finishing it. Never raises.

        If another thread is writing, do not wait: that thread closes the file after its write. On a local file system,
        the caller deletes the incomplete file. On an object store there is none: the upload is aborted.
        """
        with self._lock:
            self._aborted = True
            if self._is_writing:
                return
        self._discard()

    def _discard(self) -> None:
        from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]

        if self._closed:
            return
        self._closed = True
        try:
            if isinstance(self._file, AbstractBufferedFile):
                try:
                    self._file.discard()
                finally:
                    self._file.closed = True  # otherwise the garbage collector stores it
            else:
                self._file.close()
        except Exception:  # noqa: S110 - the caller has a more important error
            pass

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._was_aborted(is_writing=True):
            raise StorageError(f"`path`: writing {self._where} was aborted.")
        try:
            with _explained("writing", self._where, self._local):
                yield
        finally:
            if self._was_aborted(is_writing=False):
                self._discard()

    def _was_aborted(self, is_writing: bool) -> bool:
        """Return whether another thread has called :meth:`abort`.

        :param is_writing: whether this thread writes from now on.
        """
        with self._lock:
            self._is_writing = is_writing and not self._aborted
            return self._aborted


class Directory:
    """A directory. It does not have to exist yet.

    :param fs: the file system.
    :param root: the directory's path on it, with or without protocol.
    """

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = str(fs._strip_protocol(root)).rstrip("/")
        self.local = bool(getattr(fs, "local_file", False))
        """Whether a rename is one step, and :meth:`lock` excludes other processes."""
        protocols = fs.protocol
        # No directory has to be created there, and `makedirs` could create a bucket if its name is misspelt.
        self._is_store = not STORES.isdisjoint([protocols] if isinstance(protocols, str) else protocols)

    def __str__(self) -> str:
        return self._root if self.local else str(self._fs.unstrip_protocol(self._root))

    def make(self) -> None:
        """Create the directory, if the file system has directories.

        :raises IntergiroValueError: there is a file of that name, or the path names no bucket.
        """
        if self._is_store:
            if not self._root or self._root.startswith("/"):
                raise IntergiroValueError("`path` names no bucket. Write it like s3://conn_id@bucket/directory.")
            return
        try:
            with self._explained("creating", ""):
                self._fs.makedirs(self._root, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise IntergiroValueError(
                f"`path` must be a directory, but {self._root}, or a directory above it, is a file."
            ) from None
        except FileNotFoundError as error:  # such as below /proc
            raise StorageError(f"`path`: the directory {self._root} cannot be created: {error.strerror}.") from error

    def names(self) -> list[str]:
        """Return the names of the files in the directory now, without a cached listing."""
        return list(self.sizes())

    def sizes(self) -> dict[str, int | None]:
        """Return the names and sizes in bytes of the files; a size is None if the file system does not say it."""
        self._fs.invalidate_cache(self._root)
        try:
            with self._explained("listing", ""):
                found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry.get("size") for entry in found}

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is no such file."""
        self._fs.invalidate_cache(self._root)  # some clients search the file in their last listing
        try:
            with self._explained("reading", name):
                content: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> BinaryIO:
        """Open a large file for reading."""
        self._fs.invalidate_cache(self._root)
        with self._explained("reading", name):
            file: BinaryIO = self._fs.open(self._path(name), "rb", block_size=_UPLOAD_BLOCK)
        return file

    def create(self, name: str) -> FileSink:
        """Open a file for writing, in place of an existing one."""
        with self._existing():
            return FileSink(self._fs, self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file. If the process is killed meanwhile, a local file can be incomplete."""
        with self._existing(), self._explained("writing", name):
            self._fs.pipe_file(self._path(name), content)

    def write_new(self, name: str, content: bytes, temporary: str) -> None:
        """Create a small file in one step, which one of several processes can do. It needs no locks.

        :param temporary: the name of a temporary file of this process alone, for a local file system.
        :raises FileExistsError: the file exists.
        """
        if not self.local:
            with self._existing(), self._explained("writing", name):
                self._fs.pipe_file(self._path(name), content, mode="create")
            return
        sink = self.create(temporary)
        try:
            sink.write(content)
            sink.close()
            with self._explained("writing", name):
                try:
                    os.link(self._path(temporary), self._path(name))
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    self._write_exclusively(name, content)
        finally:
            sink.abort()
            self.delete(temporary)
        self._sync_entries()

    def _write_exclusively(self, name: str, content: bytes) -> None:
        with open(self._path(name), "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, name: str, content: bytes, temporary: str) -> None:
        """Replace a small file so that a reader finds the old content or the new content, and nothing in between.

        :param temporary: the name of a temporary file, for a local file system.
        """
        if not self.local:
            self.write(name, content)  # an object store shows an object only when it is complete
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
        """Rename a file, in place of an existing one; on a local file system in one step."""
        old, new = self._path(name), self._path(new_name)
        with self._explained("renaming", name):
            if not self._is_store:
                self._fs.mv(old, new)
                return
            # `mv` on object stores takes names for patterns, and hides that it could not delete the original.
            self._fs.invalidate_cache(self._root)
            self._fs.cp_file(old, new)
            self._fs.rm_file(old)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        try:
            with self._explained("deleting", name):
                self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of a local directory, which excludes other processes and threads. An object store has no lock.

        The lock is on the directory itself, so it leaves no file, and the kernel releases it when the process ends.

        :raises IntergiroError: the lock was not released within a minute.
        """
        if not self.local:
            yield
            return
        with self._existing(), self._explained("opening", ""):
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
                        f"Another task has held the lock of {self._root} for {_LOCK_WAIT:.0f} s, to publish there. The "
                        "task can be retried."
                    ) from None
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    return  # a network file system without locks on directories is as safe as an object store
                raise
            time.sleep(_LOCK_POLL)

    def _sync_entries(self) -> None:
        handle = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:
            pass  # some file systems cannot sync a directory
        finally:
            os.close(handle)

    def _explained(self, doing: str, name: str) -> AbstractContextManager[None]:
        return _explained(doing, f"{self}/{name}" if name else str(self), self.local)

    @contextmanager
    def _existing(self) -> Iterator[None]:
        """Explain the error if the directory or the bucket does not exist."""
        try:
            yield
        except FileNotFoundError as error:
            if self._is_store:
                bucket = self._root.partition("/")[0]
                raise IntergiroValueError(
                    f"`path`: the bucket {bucket!r} of {self} does not exist. Create it."
                ) from error
            raise StorageError(f"`path`: {self} was deleted while a pull wrote to it.") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
