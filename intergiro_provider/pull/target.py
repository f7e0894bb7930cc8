# SPDX-License-Identifier: Apache-2.0
"""The target directory of a pull, in which a result appears complete or not at all.

Readers use ``_manifest.json`` and the parts that it names. All other files are the unfinished work of a pull: its lock
file, its staged parts, its checkpoint. Their names begin with an underscore. Globs over ``part-*`` and most data tools
ignore them.

**Publish.** A pull writes its lock file, stages its parts, and commits. The commit gives the parts their final names,
replaces the manifest (a rename on a local file system, one PUT on an object store), deletes the lock file, and deletes
the files that the manifest does not name. A pull that fails before its manifest is in place leaves the previous result
unchanged, and deletes its own files.

**Two pulls in one directory** do not mix. Their files have different names. At its commit, a pull fails (Airflow
retries it) if the manifest is no longer the one that it found when it began. No pull deletes a file that the manifest
names, or a file of a pull that has a lock file. A stale lock file is deleted before the files of its pull. A pull
without its lock file does not commit, so a process that was paused for long fails instead of publishing.

**Local file system or object store.** On a local file system, a lock on the directory makes a commit and a sweep
exclude each other, so all of this is strict. An object store has no lock. Between a pull's last check of the directory
and its PUT, which follow each other at once, another pull can commit. Then the later manifest is valid, its result is
complete, and the parts of the other pull are deleted. In one case a manifest names parts that are gone: a process is
paused exactly between check and PUT, and another pull takes its lock file for stale and commits. When the process
continues, its PUT replaces the manifest. That pull fails, and the next pull repairs the directory.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull import lock_files, names
from intergiro_provider.pull.checkpoint import Checkpoint
from intergiro_provider.pull.directory import Directory, FileSink
from intergiro_provider.pull.manifest import MANIFEST_NAME, Manifest, read_manifest

log = logging.getLogger(__name__)

_DELETE_TRIES = 3
_DELETE_PAUSE = 1.0  # seconds
_PUBLISH_TRIES = 3
_PUBLISH_PAUSE = 1.0  # seconds


class Target:
    """The target directory of one pull, from :meth:`begin` to :meth:`commit`, :meth:`suspend` or :meth:`abandon`.

    :param directory: where the result goes.
    :param owner: names the task instance, the same in each attempt: a retry cleans up after an attempt that was killed.
    """

    def __init__(self, directory: Directory, owner: str = "") -> None:
        self.pull_id = names.new_pull_id()
        """The name of the pull. A resumed pull gets the time of its first attempt in it: see :meth:`begin`."""
        self.resumed: Checkpoint | None = None
        """The checkpoint of an earlier attempt, whose parts belong to this pull now."""
        self._directory = directory
        self._owner = owner
        self._started = datetime.now(UTC)
        self._previous: str | None = None  # the pull whose manifest was there at the beginning
        self._has_begun = self._committed = False
        self._in_flight = False  # whether a PUT of the manifest may still be carried out
        self._stale_pulls: set[str] = set()  # the PUT of one of these may still be carried out, too

    def begin(self, earlier: Checkpoint | None = None) -> Manifest | None:
        """Write the lock file, delete the files of stale pulls, and return the manifest that is there.

        :param earlier: the checkpoint of an earlier attempt of the same task. Its parts become this pull's parts, if
            all of them are there: see :attr:`resumed`. Then the pull is as old as its oldest page.
        :raises IntergiroValueError: the path is a file, or another program has written the manifest there.
        """
        self._directory.make()
        self._has_begun = True
        if earlier is not None:
            fresh, self.pull_id = self.pull_id, names.new_pull_id(earlier.began)
            self._write_lock_file()
            self.resumed = self._take_over(earlier)
            if self.resumed is None:
                self._directory.delete(names.lock_file(self.pull_id))
                self.pull_id = fresh
        if self.resumed is None:
            self._write_lock_file()
        found = self._sweep()
        self._previous = found.pull_id if found else None
        return found

    def result(self) -> Manifest | None:
        """Return the manifest that is there now; None if there is none.

        :raises IntergiroValueError: another program has written it.
        """
        return self._manifest()

    def stage(self, part: str) -> FileSink:
        """Begin a part.

        :param part: its name once it is published, see :func:`.names.part_name`.
        """
        return self._directory.create(names.staged_part(part))

    def reopen(self, part: str) -> BinaryIO:
        """Open a staged part for reading."""
        return self._directory.open(names.staged_part(part))

    def read_checkpoint(self, pull_id: str) -> bytes | None:
        """Return the checkpoint of a pull in this directory; None if there is none."""
        return self._directory.read(names.checkpoint_name(pull_id))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of this pull.

        :raises IntergiroError: another pull has deleted the lock file of this one, so no attempt can resume from it.
        """
        self._check_lock_file()
        name, temporary = names.checkpoint_name(self.pull_id), names.temporary_checkpoint(self.pull_id)
        self._directory.replace(name, checkpoint.to_json(), temporary)

    def commit(self, manifest: Manifest) -> None:
        """Publish: after this, the directory holds this result and no other.

        :raises IntergiroError: another pull was faster, or has deleted the lock file. Nothing is published then.
        """
        with self._directory.lock():
            self._check_unchanged()
            for part in manifest.parts:
                self._directory.rename(names.staged_part(part.path), part.path)
            self._publish(manifest)
            if not self._has_lock_file():  # on an object store only: see the module
                self._has_begun = False  # so that nothing is deleted
                raise IntergiroError(
                    f"While this pull ({self.pull_id}) published to {self._directory}, another pull deleted its lock "
                    "file as stale. Run one of the two again."
                )
        self._committed = True
        # In this order: a pull that replaces the manifest from here on finds no lock file, and so deletes our parts.
        self._directory.delete(names.lock_file(self.pull_id))
        self._sweep()

    def suspend(self, checkpoint: Checkpoint) -> None:
        """End the pull without a result, and keep the parts of its checkpoint for the next attempt. Never raises."""
        try:
            if self._is_published():
                self._delete_files()
                return
            if self._in_flight:
                self._warn_of_publishing()
                return
            staged = {names.staged_part(part.path) for part in checkpoint.parts}
            for name in self._directory.names():
                if names.pull_of(name) != self.pull_id or name in staged or names.is_checkpoint(name):
                    continue
                if names.staged_part(name) in staged:  # a failed commit has given it its final name
                    self._directory.rename(name, names.staged_part(name))
                else:
                    self._directory.delete(name)
            self._directory.delete(names.lock_file(self.pull_id))
        except Exception as error:
            self._warn_of_leftovers(error)

    def abandon(self) -> None:
        """Delete the files of this pull, unless it is published. Never raises: the pull has failed already."""
        if not self._has_begun:
            return
        try:
            self._delete_files()
        except Exception as error:
            self._warn_of_leftovers(error)

    def _publish(self, manifest: Manifest) -> None:
        """Replace the manifest.

        A PUT that was interrupted or got no response may still be carried out later, by the client's own thread or by
        the store. So it is repeated. If its outcome stays unknown, the parts that the manifest names are kept.
        """
        temporary = names.temporary_manifest(self.pull_id)
        for attempt in range(1, _PUBLISH_TRIES + 1):
            self._check_unchanged()
            try:
                self._in_flight = not self._directory.local
                self._directory.replace(MANIFEST_NAME, manifest.to_json(), temporary)
                break
            except Exception as error:
                if self._is_published():
                    log.warning("Writing %s failed, but the file is there: the response was lost.", MANIFEST_NAME)
                    break
                refused = isinstance(error.__cause__, PermissionError)
                if refused and attempt == 1:
                    self._in_flight = False
                if refused or self._directory.local or attempt == _PUBLISH_TRIES:
                    raise
            time.sleep(_PUBLISH_PAUSE)
        self._in_flight = False

    def _take_over(self, earlier: Checkpoint) -> Checkpoint | None:
        """Rename the parts of an earlier attempt to names of this pull; return None if one is missing."""
        with self._directory.lock():
            manifest = self._manifest()
            if manifest is not None and manifest.pull_id == earlier.pull_id:
                return None  # it has published them
            self._directory.delete(names.lock_file(earlier.pull_id))
            self._stale_pulls.add(earlier.pull_id)
            sizes = self._directory.sizes()
            ours = earlier.renamed(self.pull_id)
            moves = []
            for theirs, part in zip(earlier.parts, ours.parts, strict=True):
                candidates = [names.staged_part(theirs.path)]
                if self._directory.local:  # it has its final name if the attempt was killed while it published
                    candidates.append(theirs.path)
                found = next((name for name in candidates if sizes.get(name) == theirs.bytes), None)
                if found is None:
                    return None
                moves.append((found, names.staged_part(part.path)))
            moved = []
            try:
                for found, name in moves:
                    self._directory.rename(found, name)
                    moved.append((found, name))
            except FileNotFoundError:  # that attempt is still running
                return None
            except OSError:
                for found, name in moved:  # for the next attempt
                    with suppress(OSError):
                        self._directory.rename(name, found)
                raise
        return ours

    def _delete_files(self) -> None:
        published = self._is_published()
        if not published and self._in_flight:
            self._warn_of_publishing()
        elif not published:
            for name in self._directory.names():
                if names.pull_of(name) == self.pull_id:
                    self._directory.delete(name)
            self._directory.delete(names.lock_file(self.pull_id))
        else:  # the pull failed between its commit and the end of its sweep
            self._committed = True
            self._directory.delete(names.lock_file(self.pull_id))
            self._sweep()

    def _check_lock_file(self) -> None:
        if not self._has_lock_file():
            raise IntergiroError(
                f"Another pull that writes to {self._directory} deleted the lock file of this pull ({self.pull_id}) as "
                "stale, so this pull publishes nothing. The result there is unchanged."
            )

    def _check_unchanged(self) -> None:
        self._check_lock_file()
        manifest = self._manifest()
        now = manifest.pull_id if manifest else None
        # Our own manifest, if an attempt to write it got no response and was carried out.
        if now not in (self._previous, self.pull_id) and now not in self._stale_pulls:
            raise IntergiroError(
                f"While this pull ran, another one ({now}) published to {self._directory}: two tasks write to one "
                "`path`. Give each its own. The result there is unchanged."
            )

    def _write_lock_file(self) -> None:
        with self._directory.lock():  # so that an incomplete lock file always means that its pull was killed
            self._directory.write(names.lock_file(self.pull_id), lock_files.content(self._owner, self._started))

    def _has_lock_file(self) -> bool:
        return self._directory.read(names.lock_file(self.pull_id)) is not None

    def _is_published(self) -> bool:
        try:
            manifest = self._manifest()
        except IntergiroValueError:  # another program's
            return False
        return manifest is not None and manifest.pull_id == self.pull_id

    def _manifest(self) -> Manifest | None:
        stored = self._directory.read(MANIFEST_NAME)
        return None if stored is None else read_manifest(stored, str(self._directory))

    def _sweep(self) -> Manifest | None:
        """Delete the files of pulls that are not running and that the manifest does not name; return the manifest.

        The sweep lists files, then lock files, and then reads the manifest. The order matters. A pull writes its lock
        file before any other file. So if a file is listed, and the lock file of its pull is not, the pull has deleted
        it. A pull does that only after it has replaced the manifest, and the sweep reads that manifest.
        """
        with self._directory.lock():
            files = [(name, pull) for name in self._directory.names() if (pull := names.pull_of(name))]
            locked = [pull for name in self._directory.names() if (pull := names.pull_of_lock_file(name))]
            running = {pull for pull in locked if self._is_running(pull)}
            manifest = self._manifest()
            named = {part.path for part in manifest.parts} if manifest else set()
            # Before the commit, published parts stay if there is no manifest, or no lock that keeps a paused pull from
            # publishing a manifest that names them.
            all_parts = self._committed or (manifest is not None and self._directory.local)
            for name, pull in files:
                if name not in named and pull not in running and (all_parts or names.is_unpublished(name)):
                    self._delete(name)
        return manifest

    def _is_running(self, pull_id: str) -> bool:
        """Return whether a pull is running; delete its lock file if it is stale, before any other file of the pull."""
        if pull_id == self.pull_id:
            return True
        name = names.lock_file(pull_id)
        stored = self._directory.read(name)
        if stored is None:
            return False  # the pull has just ended
        if lock_files.is_stale(pull_id, stored, self._owner, self._started):
            self._delete(name)
            self._stale_pulls.add(pull_id)
            return False
        log.warning(
            "Another pull (%s, of %s) writes to %s, too. Only the first to finish is published.",
            pull_id, lock_files.describe(stored), self._directory,
        )  # fmt: skip
        return True

    def _delete(self, name: str) -> None:
        """Delete a file, with several attempts: a glob over the parts would find a part that is left."""
        for attempt in range(1, _DELETE_TRIES + 1):
            try:
                self._directory.delete(name)
                return
            except OSError as error:
                if attempt == _DELETE_TRIES:
                    raise IntergiroError(
                        f"{name} in {self._directory} does not belong to the result there and could not be deleted "
                        f"({type(error).__name__}). Readers of {MANIFEST_NAME} are not affected, but a glob finds it."
                    ) from error
                time.sleep(_DELETE_PAUSE)

    def _warn_of_publishing(self) -> None:
        log.warning(
            "It is not known whether the pull %s is published in %s. Its files stay until the next pull there.",
            self.pull_id, self._directory,
        )  # fmt: skip

    def _warn_of_leftovers(self, error: Exception) -> None:
        log.warning(
            "The files of the pull %s in %s could not be deleted (%s). The next pull there deletes them.",
            self.pull_id, self._directory, type(error).__name__,
        )  # fmt: skip
