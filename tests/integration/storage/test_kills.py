# SPDX-License-Identifier: Apache-2.0
"""A pull over a previous result is killed at each of its steps. A reader finds one complete result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from intergiro_provider.pull.directory import Directory
from tests.integration.storage import kills
from tests.integration.storage.kills import LARGE, RECORDS
from tests.integration.storage.places import Folder, Place, only_published, published
from tests.integration.storage.s3 import Lake
from tests.integration.storage.table import FORMER, KILLS, NEW
from tests.integration.storage.wire import Wire

pytestmark = pytest.mark.integration

Found = Counter[tuple[str, int]]


def kill(
    place: Place, new: list[bytes], open_again: Callable[[], Directory], strike: Callable[[], str | None], found: Found
) -> str | None:
    """Publish the previous rows, kill a pull of the new ones, read the result, and pull again."""
    kills.pull(open_again(), new[:FORMER])
    phase = strike()
    _, records = published(place)
    if phase is not None:
        assert len(records) in KILLS[phase], (phase, len(records))
        assert records == new[: len(records)]
        found[phase, len(records)] += 1
    kills.pull(open_again(), new)
    assert only_published(place)[1] == new
    return phase


def report(found: Found) -> None:
    for (phase, rows), times in found.items():
        print(f"{phase}: {times} times {rows} rows")


def test_locally(tmp_path: Path) -> None:
    """Before every system call for the directory, in the middle of every write, and at every page."""
    found: Found = Counter()
    for number in range(1000):
        path = tmp_path / f"{number}"
        strike = partial(kills.kill_locally, path, number)
        if kill(Folder(path), RECORDS, partial(kills.local, path), strike, found) is None:
            break
    report(found)
    assert {phase for phase, _ in found} == set(KILLS)
    assert found.total() == number > 35
    assert {rows for phase, rows in found if phase == "replacing the manifest"} == {FORMER, NEW}


@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_on_s3(lake: Lake, wire: Wire, first: int, carried_out: bool) -> None:
    """At every ninth request, which the store either carries out or not."""
    found, _ = kill_on_s3(lake, wire, RECORDS, range(3 * first, 1000, 9), carried_out)
    assert found.total() >= 3


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("carried_out", [False, True], ids=["not carried out", "carried out"])
def test_at_every_request_to_s3(lake: Lake, wire: Wire, carried_out: bool) -> None:
    """With a part that is sent in pieces."""
    found, uploads = kill_on_s3(lake, wire, LARGE, range(1000), carried_out)
    report(found)
    print(f"{uploads} uploads were left unfinished, which nobody sees")
    assert {phase for phase, _ in found} == set(KILLS) - {"waiting for a page"}
    assert found.total() > 30
    assert uploads > 0


def kill_on_s3(
    lake: Lake, wire: Wire, new: list[bytes], numbers: Iterable[int], carried_out: bool
) -> tuple[Found, int]:
    """Kill a pull at each of these requests. Return the results, and the number of unfinished uploads."""
    found: Found = Counter()
    place = lake.place("lake")
    for number in numbers:
        strike = partial(kills.kill_on_s3, wire, lake.bucket, new, number, carried_out)
        if kill(place, new, partial(kills.on_s3, lake.port, lake.bucket), strike, found) is None:
            break
    return found, len(place.uploads())
