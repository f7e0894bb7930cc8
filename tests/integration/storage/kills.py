# SPDX-License-Identifier: Apache-2.0
"""A pull in its own process, killed at its n-th step: on a local disk at a system call, on S3 at a request."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileOpener, LocalFileSystem

from intergiro_provider.pull import directory
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.pull import Pull, PullRequest
from intergiro_provider.pull.target import Target
from tests.integration.storage import s3
from tests.integration.storage.places import MANIFEST
from tests.integration.storage.table import KILLS, NEW
from tests.integration.storage.wire import Request, Wire
from tests.unit.pull.lists import ListInMemory, pages_of, record

CLAIM, LOOK, WAIT, PART, NAME, PUBLISH, DROP, CLEAR = KILLS

SMALL_BLOCK = 5 << 20
"""The smallest size of a piece of an upload to S3, in bytes."""

RECORDS = [record(number, note="x" * 300) for number in range(NEW)]
LARGE = [*RECORDS[:300], record(300, note="x" * (11 << 20)), *RECORDS[301:]]
"""Records, one of which is so large that its part is sent in pieces."""


def pull(place: Directory, records: list[bytes], step: Callable[[], object] = lambda: None) -> None:
    """Publish these records, in several parts.

    :param step: called before each page.
    """
    bank = ListInMemory(records)

    def fetch(query: dict[str, Any]) -> bytes:
        step()
        return bank(query)

    Pull(PullRequest(endpoint="transactions", part_bytes=100_000), pages_of(fetch), Target(place)).run()


class Phases:
    """Finds the phase of a pull for each step. Steps must be given in order."""

    def __init__(self) -> None:
        self._now = CLAIM

    def of(self, what: str, name: str, new_name: str = "") -> str:
        """Return the phase of a step.

        :param what: `write`, `read` or `list`, `delete`, `rename`, `page`.
        """
        if what == "page":
            self._now = WAIT
        elif name.startswith("_part-") and what == "write":
            self._now = PART
        elif new_name.startswith("part-") or (name.startswith("part-") and what == "rename"):
            self._now = NAME
        elif name.startswith("_manifest-") or MANIFEST in (new_name, name if what == "write" else ""):
            self._now = PUBLISH
        elif name.startswith("_pull-") and what == "delete":
            self._now = DROP
        elif self._now == CLAIM and what != "write":
            self._now = LOOK
        elif self._now == DROP:
            self._now = CLEAR
        return self._now


def _in_a_child(work: Callable[[], None], started: Callable[[int], None] = lambda pid: None) -> bool:
    """Run a function in a child process, and return whether the child was killed.

    After almost half a minute, the child prints where it hangs. Then it is ended.
    """
    child = os.fork()
    if child == 0:
        code = 1
        faulthandler.dump_traceback_later(25, file=2)
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    started(child)
    watch = threading.Timer(30, os.kill, (child, signal.SIGTERM))
    watch.start()
    try:
        status = os.waitpid(child, 0)[1]
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        watch.cancel()
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (0, -signal.SIGKILL), f"the pull failed by itself: {ended}"
    return ended != 0


# On the local disk.


def local(path: Path) -> Directory:
    return Directory(LocalFileSystem(skip_instance_cache=True), str(path))


_CALLS = {
    "open": "read", "os.listdir": "list", "os.scandir": "list", "os.mkdir": "write", "os.remove": "delete",
    "os.rename": "rename",
}  # fmt: skip


def kill_locally(path: Path, number: int) -> str | None:
    """Kill a pull before its n-th step in the directory. Return its phase; None if it ended before."""
    reader, writer = os.pipe()

    def work() -> None:
        phases, count = Phases(), itertools.count()

        def step(what: str, name: str, new_name: str = "", half: Callable[[], object] = lambda: None) -> None:
            phase = phases.of(what, name, new_name)
            if next(count) == number:
                half()
                os.write(writer, phase.encode())
                os.kill(os.getpid(), signal.SIGKILL)

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CALLS and isinstance(arguments[0], str) and arguments[0].startswith(str(path)):
                names = [Path(p).name for p in arguments[:2] if isinstance(p, str) and p.startswith(str(path))]
                writes = event == "open" and "w" in (arguments[1] or "")
                step("write" if writes else _CALLS[event], *names)

        write = LocalFileOpener.write

        def write_half(file: Any, data: bytes) -> Any:
            def half() -> None:
                write(file, data[: len(data) // 2])
                file.f.flush()

            step("write", Path(file.path).name, half=half)
            return write(file, data)

        LocalFileOpener.write = write_half
        sys.addaudithook(look)
        pull(local(path), RECORDS, lambda: step("page", ""))

    killed = _in_a_child(work)
    os.close(writer)
    with os.fdopen(reader) as said:
        phase = said.read()
    return phase if killed else None


# On S3.


def on_s3(port: int, bucket: str) -> Directory:
    from s3fs import S3FileSystem

    fs = S3FileSystem(
        key=s3.KEY, secret=s3.SECRET, endpoint_url=f"http://127.0.0.1:{port}",
        client_kwargs={"region_name": s3.REGION}, skip_instance_cache=True,
    )  # fmt: skip
    return Directory(fs, f"{bucket}/lake")


_REQUESTS = {
    "put": "write", "create upload": "write", "upload part": "write", "complete upload": "write", "get": "read",
    "head": "read", "list": "list", "copy": "rename", "create copy": "rename", "delete": "delete",
}  # fmt: skip


def kill_on_s3(wire: Wire, bucket: str, records: list[bytes], number: int, carried_out: bool) -> str | None:
    """Kill a pull of these records at its n-th request. Return its phase; None if it ended before.

    :param carried_out: whether the store carries out that request.
    """
    phases, count = Phases(), itertools.count()
    pids: list[int] = []
    killed: list[str] = []

    def look(request: Request) -> bool:
        if killed:
            return False
        name = request.key.rpartition("/")[2]
        what = _REQUESTS[request.operation]
        staged = what == "delete" and name.startswith("_part-")
        phase = phases.of("rename" if staged else what, name, name if what == "rename" else "")
        if next(count) != number:
            return True
        killed.append(phase)
        os.kill(pids[0], signal.SIGKILL)
        return carried_out

    def work() -> None:
        directory._UPLOAD_BLOCK = SMALL_BLOCK
        pull(on_s3(wire.port, bucket), records)

    wire.before = look
    if not _in_a_child(work, pids.append):
        return None
    return killed[0]
