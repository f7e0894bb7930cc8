# SPDX-License-Identifier: Apache-2.0
"""A reader reads repeatedly while pulls replace one another, some of which fail."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.sandbox import Sandbox
from scripts.services import wait_until
from tests.integration.storage.places import Folder, Place, only_published, published, published_again
from tests.integration.storage.s3 import Lake
from tests.integration.storage.trial import execute_in_thread, pull, transfer

pytestmark = pytest.mark.integration

PULLS = 10
PAUSE = 0.005
"""Seconds between two reads, so that the reader does not slow down the pulls."""

RESULTS = (100, 400, 730)
"""The numbers of rows of the results that replace one another."""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Folder(tmp_path / "lake")
    lake: Lake = request.getfixturevalue("lake")
    return lake.place("transactions")


class Reader(threading.Thread):
    """Reads until it is stopped, or a result is wrong. A miss is a part that had been deleted."""

    def __init__(self, place: Place, truth: list[bytes]) -> None:
        super().__init__()
        self.found: list[int] = []
        self.misses = 0
        self.wrong: BaseException | None = None
        self.over = threading.Event()
        self._place = place
        self._truth = truth

    def run(self) -> None:
        try:
            while not self.over.wait(PAUSE):
                try:
                    _, records = published(self._place)
                except KeyError:
                    self.misses += 1
                    _, records = published_again(self._place)
                assert len(records) in RESULTS
                assert records == self._truth[: len(records)]
                self.found.append(len(records))
        except BaseException as error:
            self.wrong = error


def test_never_sees_half_a_result_or_two(bank: Sandbox, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
    truth = bank.records()
    bounds = {rows: json.loads(truth[rows])["created_at"] if rows < len(truth) else "9999-01-01" for rows in RESULTS}
    windows: dict[str, Any] = {"max_parallel_windows": 4, "query": {"limit": 20}}
    pull(place, created_to=bounds[RESULTS[0]])
    reader = Reader(place, truth)
    reader.start()
    try:
        for number in range(PULLS):
            if number % 3 == 2:
                bank.fault("garbled", path="/v3/transactions", skip=6)
                with pytest.raises(IntergiroError):
                    pull(place, **windows)
                bank.clear_faults()
            pull(place, created_to=bounds[RESULTS[number % 3]], **windows)
            looks = len(reader.found)
            # The current read may have begun before. On a busy machine, a pull can be faster than a read.
            wait_until(lambda looks=looks: len(reader.found) > looks + 1 or not reader.is_alive())
    finally:
        reader.over.set()
        reader.join(120)
    assert reader.wrong is None, repr(reader.wrong)
    print(f"{len(reader.found)} looks, {reader.misses} of them had to look again")
    assert len(reader.found) > PULLS
    assert set(reader.found) == set(RESULTS)
    assert len(only_published(place)[1]) == RESULTS[(PULLS - 1) % 3]


def test_two_pulls_into_one_path_at_once(bank: Sandbox, place: Place) -> None:
    """In each of many rounds, one of them is published. A reader always finds one complete result."""
    truth = bank.records()
    bounds = {rows: json.loads(truth[rows])["created_at"] if rows < len(truth) else "9999-01-01" for rows in RESULTS}
    pull(place, created_to=bounds[100])
    reader = Reader(place, truth)
    reader.start()
    outcomes: list[Exception | None] = []

    def run(rows: int) -> None:
        try:
            execute_in_thread(transfer(place, created_to=bounds[rows]))
            outcomes.append(None)
        except Exception as error:
            outcomes.append(error)

    try:
        for _ in range(5):
            both = [threading.Thread(target=run, args=(rows,)) for rows in RESULTS[1:]]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join(120)
    finally:
        reader.over.set()
        reader.join(120)
    assert reader.wrong is None, repr(reader.wrong)
    assert {type(error) for error in outcomes} <= {type(None), IntergiroError}
    assert outcomes.count(None) >= 5
    pull(place)
    assert only_published(place)[1] == truth
