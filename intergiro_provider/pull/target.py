# SPDX-License-Identifier: Apache-2.0
"""How a result appears in a directory whole, or not at all.

A reader sees ``_manifest.json`` and the parts that it names. Everything else has a name that begins with an
underscore, which globs over ``part-*`` and most data tools pass over, and is a pull's unfinished work: its
claim, its staged parts.

A pull claims, stages its parts, and commits: it gives the parts their final names, replaces the manifest (a
rename on a local file system, one PUT on an object store), drops its claim, and removes what the manifest
does not name. Whatever fails before the manifest is replaced leaves the former result as it was, and the
failing pull removes what it made.

Two pulls into one directory do not mix. Each has names of its own, and at the commit a pull gives way (an
error that Airflow retries) if the manifest is no longer the one that it found when it began. Nobody deletes a
file that the manifest names, or whose pull still has a claim. A dead pull's claim is deleted before its
files, and a pull without its claim does not commit: a process that was paused and wakes up late fails instead
of publishing.

On a local file system the commit and the sweep exclude each other by a lock on the directory: there all of
this is strict. An object store has no such lock. Between a pull's last look at the directory and its PUT,
which follow each other at once, another pull can commit: then the later manifest stands, whole, and the other's parts
are removed. Only a process that is paused exactly there, while another pull begins, takes it for dead, and
commits, could still publish a manifest whose parts are gone: it fails, and the next pull repairs that.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import BinaryIO

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull import claims
from intergiro_provider.pull.checkpoint import Checkpoint
from intergiro_provider.pull.directory import Directory, FileSink
from intergiro_provider.pull.manifest import MANIFEST_NAME, Manifest, read_manifest

log = logging.getLogger(__name__)

_DELETE_TRIES = 3
_DELETE_PAUSE = 1.0  # seconds
_PUBLISH_TRIES = 3
_PUBLISH_PAUSE = 1.0  # seconds


class Target:
    """One pull's place in a directory, from :meth:`begin` to :meth:`commit` or :meth:`abandon`.

    :param directory: where the result goes.
    :param owner: names the task instance, the same for each of its tries: a retry clears up after a try that
        was killed.
    """

    def __init__(self, directory: Directory, owner: str = "") -> None:
        self.pull_id = claims.new_pull_id()
        self._directory = directory
        self._owner = owner
        self._found: str | None = None  # pull id of the manifest that was there when we began
        self.took_over: Checkpoint | None = None
        """How far an earlier try had come, whose parts are this pull's now."""
        self._claimed = self._committed = False
        self._in_flight = False  # whether a manifest may yet appear that nobody waits for any more
        self._buried: set[str] = set()  # pulls that we took for dead; the manifest of one may yet come late

    def begin(self, earlier: Checkpoint | None = None) -> Manifest | None:
        """Claim the directory, clear away what dead pulls left, and return the manifest that is there.

        :param earlier: of an earlier try of the same task, which has ended: its parts become this pull's, if all are
            there; see :attr:`took_over`.
        :raises IntergiroValueError: the path is a file, or holds a manifest of somebody else.
        """
        self._directory.make()
        self._claimed = True
        with self._directory.lock():  # so that half a claim, where it is found, is of a pull that died right here
            self._directory.write(claims.claim_name(self.pull_id), claims.write_claim(self._owner))
        if earlier is not None:
            self.took_over = self._take_over(earlier)
        found = self._sweep()
        self._found = found.pull_id if found else None
        return found

    def result(self) -> Manifest | None:
        """The result that is there now.

        :raises IntergiroValueError: the manifest is somebody else's.
        """
        return self._manifest()

    def stage(self, part: str) -> FileSink:
        """Begin a part.

        :param part: the name that it will have once published, see :func:`claims.part_name`.
        """
        return self._directory.create(claims.staged_name(part))

    def reopen(self, part: str) -> BinaryIO:
        """Read a part that is staged."""
        return self._directory.open(claims.staged_name(part))

    def checkpoint_of(self, pull_id: str) -> bytes | None:
        """The note of a pull in this directory; None if there is none."""
        return self._directory.read(claims.checkpoint_name(pull_id))

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the note of this pull.

        :raises IntergiroError: another took this pull for dead, so that there is nothing to take up.
        """
        self._check_has_claim()
        name, temporary = claims.checkpoint_name(self.pull_id), claims.checkpoint_on_its_way(self.pull_id)
        self._directory.replace(name, checkpoint.to_json(), temporary)

    def keep(self, checkpoint: Checkpoint) -> None:
        """End the pull without a result, but leave the parts of its note to the next try. Never raises."""
        try:
            if self._is_published():
                self._abandon()
                return
            if self._in_flight:
                self._warn_of_publishing()
                return
            staged = {claims.staged_name(part.path) for part in checkpoint.parts}
            for name in self._directory.names():
                if claims.pull_of(name) != self.pull_id or name in staged or claims.is_note(name):
                    continue
                if claims.staged_name(name) in staged:  # a commit that failed had given it its final name
                    self._directory.rename(name, claims.staged_name(name))
                else:
                    self._directory.delete(name)
            self._directory.delete(claims.claim_name(self.pull_id))
        except Exception as error:
            self._warn_of_leftovers(error)

    def commit(self, manifest: Manifest) -> None:
        """Publish: after this the directory holds this result and no other.

        :raises IntergiroError: another pull was faster, or took this one for dead. Nothing is published then.
        """
        with self._directory.lock():
            self._check_still_ours()
            for part in manifest.parts:
                self._directory.rename(claims.staged_name(part.path), part.path)
            self._publish(manifest)
            if not self._has_claim():  # only without a lock: see above
                self._claimed = False  # so that nothing is cleared away
                raise IntergiroError(
                    f"this pull ({self.pull_id}) was taken for dead by another just while it published to "
                    f"{self._directory}; run either of them again"
                )
        self._committed = True
        # This order matters: whoever replaces our manifest from here on finds no claim, and so removes our parts too.
        self._directory.delete(claims.claim_name(self.pull_id))
        self._sweep()

    def _publish(self, manifest: Manifest) -> None:
        """Replace the manifest.

        A PUT that was interrupted, or got no answer, may still be carried out later, in the client's own thread or
        in the store. So it is repeated; and where its end stays unknown, the parts that it names are left alone.
        """
        temporary = claims.manifest_on_its_way(self.pull_id)
        for attempt in range(1, _PUBLISH_TRIES + 1):
            self._check_still_ours()
            try:
                self._in_flight = not self._directory.local
                self._directory.replace(MANIFEST_NAME, manifest.to_json(), temporary)
                break
            except Exception as error:
                if self._is_published():
                    log.warning("Writing %s failed, but it is there: the store's answer was lost.", MANIFEST_NAME)
                    break
                refused = isinstance(error.__cause__, PermissionError)
                if refused and attempt == 1:
                    self._in_flight = False
                if refused or self._directory.local or attempt == _PUBLISH_TRIES:
                    raise
            time.sleep(_PUBLISH_PAUSE)
        self._in_flight = False

    def abandon(self) -> None:
        """Remove what this pull made, unless it is published. Never raises: another error is on its way."""
        if not self._claimed:
            return
        try:
            self._abandon()
        except Exception as error:
            self._warn_of_leftovers(error)

    def _warn_of_publishing(self) -> None:
        log.warning(
            "Whether the pull %s is published in %s will show: what it made stays until the next pull there.",
            self.pull_id, self._directory,
        )  # fmt: skip

    def _warn_of_leftovers(self, error: Exception) -> None:
        log.warning(
            "Could not clear up after the pull %s in %s (%s); the next pull there does.",
            self.pull_id, self._directory, type(error).__name__,
        )  # fmt: skip

    def _take_over(self, earlier: Checkpoint) -> Checkpoint | None:
        """Give the parts of an earlier try names of this pull's; None if they are not all there."""
        with self._directory.lock():
            manifest = self._manifest()
            if manifest is not None and manifest.pull_id == earlier.pull_id:
                return None  # it had published them
            self._directory.delete(claims.claim_name(earlier.pull_id))
            self._buried.add(earlier.pull_id)
            sizes = self._directory.sizes()
            ours = earlier.renamed(self.pull_id)
            moves = []
            for former, part in zip(earlier.parts, ours.parts, strict=True):
                names = [claims.staged_name(former.path)]
                if self._directory.local:  # under its final name if that try was killed while it published
                    names.append(former.path)
                found = next((name for name in names if sizes.get(name) == former.bytes), None)
                if found is None:
                    return None
                moves.append((found, claims.staged_name(part.path)))
            moved = []
            try:
                for found, name in moves:
                    self._directory.rename(found, name)
                    moved.append((found, name))
            except FileNotFoundError:  # that try is not as dead as it should be
                return None
            except OSError:
                for found, name in moved:  # for the next try, if they can be
                    with suppress(OSError):
                        self._directory.rename(name, found)
                raise
        return ours

    def _abandon(self) -> None:
        published = self._is_published()
        if not published and self._in_flight:
            self._warn_of_publishing()
        elif not published:
            for name in self._directory.names():
                if claims.pull_of(name) == self.pull_id:
                    self._directory.delete(name)
            self._directory.delete(claims.claim_name(self.pull_id))
        else:  # the error struck between the commit and the end of its sweep
            self._committed = True
            self._directory.delete(claims.claim_name(self.pull_id))
            self._sweep()

    def _check_has_claim(self) -> None:
        if not self._has_claim():
            raise IntergiroError(
                f"this pull ({self.pull_id}) was taken for dead by another that writes to {self._directory}, "
                "so it publishes nothing; the result there is untouched"
            )

    def _check_still_ours(self) -> None:
        self._check_has_claim()
        manifest = self._manifest()
        now = manifest.pull_id if manifest else None
        # Our own, where an attempt that went unanswered was carried out after all.
        if now not in (self._found, self.pull_id) and now not in self._buried:
            raise IntergiroError(
                f"while this pull ran, another ({now}) published to {self._directory}: two tasks write to one "
                "`path`. Give each its own; the result there is untouched"
            )

    def _has_claim(self) -> bool:
        return self._directory.read(claims.claim_name(self.pull_id)) is not None

    def _is_published(self) -> bool:
        try:
            manifest = self._manifest()
        except IntergiroValueError:  # somebody else's
            return False
        return manifest is not None and manifest.pull_id == self.pull_id

    def _manifest(self) -> Manifest | None:
        stored = self._directory.read(MANIFEST_NAME)
        return None if stored is None else read_manifest(stored, str(self._directory))

    def _sweep(self) -> Manifest | None:
        """Delete every file of ours that the manifest does not name and no living pull claims; return the manifest.

        Three looks, in this order: files, claims, manifest. A file seen in the first belongs to a pull that
        had claimed before; if its claim is not seen in the second, it was dropped, which happens only after
        the manifest was replaced, and the third look sees that.
        """
        with self._directory.lock():
            files = [(name, pull) for name in self._directory.names() if (pull := claims.pull_of(name))]
            claimants = [pull for name in self._directory.names() if (pull := claims.claimed_by(name))]
            living = {pull for pull in claimants if self._lives(pull)}
            manifest = self._manifest()
            wanted = {part.path for part in manifest.parts} if manifest else set()
            # Before the commit, parts under their final names are left where there is no manifest to judge them by, and
            # where no lock keeps a late pull from publishing a manifest that names them.
            may_unpublish = self._committed or (manifest is not None and self._directory.local)
            for name, pull in files:
                if name not in wanted and pull not in living and (may_unpublish or claims.is_unpublished(name)):
                    self._delete(name)
        return manifest

    def _lives(self, pull_id: str) -> bool:
        """Whether a claim stands; a dead one is deleted here, before any file of its pull."""
        if pull_id == self.pull_id:
            return True
        name = claims.claim_name(pull_id)
        content = self._directory.read(name)
        if content is None:
            return False  # dropped a moment ago: its pull is over
        if claims.is_dead(pull_id, content, self.pull_id, self._owner):
            self._delete(name)
            self._buried.add(pull_id)
            return False
        log.warning(
            "Another pull (%s, by %s) is writing to %s as well: only the first to finish is published.",
            pull_id, claims.describe_claim(content), self._directory,
        )  # fmt: skip
        return True

    def _delete(self, name: str) -> None:
        """Delete with some patience: a former part that stays behind would be found by whoever globs."""
        for attempt in range(1, _DELETE_TRIES + 1):
            try:
                self._directory.delete(name)
                return
            except OSError as error:
                if attempt == _DELETE_TRIES:
                    raise IntergiroError(
                        f"{name} in {self._directory} does not belong to the result there and could not be deleted "
                        f"({type(error).__name__}); who reads by {MANIFEST_NAME} is safe, a glob would find it"
                    ) from error
                time.sleep(_DELETE_PAUSE)
