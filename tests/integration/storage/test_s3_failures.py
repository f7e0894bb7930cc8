# SPDX-License-Identifier: Apache-2.0
"""The object store fails while a pull writes to it: the rows of the table."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from intergiro_provider.exceptions import StorageError
from intergiro_provider.sandbox import Sandbox
from scripts.services import wait_until
from tests.integration.storage.conftest import connect
from tests.integration.storage.places import MANIFEST, only_published, published
from tests.integration.storage.s3 import Lake
from tests.integration.storage.table import FORMER, ROWS
from tests.integration.storage.trial import check_rows, publish_former, pull, reads, trial
from tests.integration.storage.wire import Request, Wire

pytestmark = pytest.mark.integration

Fault = dict[str, Any]

FAULTS: dict[str, Fault] = {
    "s3_slow": {"how": "slow", "seconds": 0.1},
    "s3_down_from_the_start": {"how": 503},
    "s3_down_in_the_middle": {"how": "drop", "skip": 5},
    "s3_part_fails": {"how": 500, "operation": "create upload"},
    "s3_piece_fails": {"how": 500, "operation": "upload part"},
    "s3_upload_fails": {"how": 500, "operation": "complete upload"},
    "s3_copy_fails": {"how": 500, "operation": "copy"},
    "s3_manifest_fails": {"how": 500, "operation": "put", "piece": MANIFEST},
    "s3_manifest_refused": {"how": 403, "operation": "put", "piece": MANIFEST},
    "s3_manifest_unanswered": {"how": "lose", "operation": "put", "piece": MANIFEST},
    "s3_former_part_stays": {"how": 403, "operation": "delete", "piece": "/part-"},
}
HICCUPS: list[Fault] = [
    {"how": how, "operation": operation, "times": 1, "skip": skip}
    for operation, how, skip in [
        ("put", 503, 0), ("put", "drop", 1), ("put", "lose", 1), ("list", 500, 0), ("list", "drop", 2),
        ("list", "cut", 1),
        ("get", 500, 0), ("get", "cut", 1), ("get", "drop", 2), ("head", 503, 0), ("copy", 500, 0), ("copy", "lose", 0),
        ("delete", 500, 0), ("delete", "lose", 1), ("create upload", "lose", 0), ("upload part", "lose", 0),
        ("upload part", 500, 1), ("complete upload", 500, 0),
    ]
]  # fmt: skip
ONE_PART: dict[str, Any] = {"max_parallel_windows": 1, "query": {"sort_by": "created_at", "sort_type": "ASC"}}
QUICK: dict[str, Any] = {"config_kwargs": {"retries": {"max_attempts": 0}}}
"""Extra of a connection whose client does not retry. s3fs still retries a lost connection five times."""


@pytest.fixture(scope="module")
def heavy(shared_bank: Sandbox) -> Sandbox:
    """Return a bank with records so large that a part is sent in two pieces."""
    ids = [json.loads(record)["id"] for record in shared_bank.records()[300:314]]
    shared_bank.change_transactions(ids, description="x" * 400_000)
    return shared_bank


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intergiro_provider.pull.directory._UPLOAD_BLOCK", 5 << 20)  # the smallest piece for S3
    monkeypatch.setattr("intergiro_provider.pull.target._DELETE_PAUSE", 0.1)
    monkeypatch.setattr("intergiro_provider.pull.target._PUBLISH_PAUSE", 0.1)


@pytest.mark.parametrize("name", FAULTS)
def test_fault(
    heavy: Sandbox, bank: Sandbox, lake: Lake, wire: Wire, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, place = ROWS[name], lake.place("transactions")
    publish_former(place, bank)
    connect(monkeypatch, wire.port, **QUICK)
    fault = wire.fault(**FAULTS[name])
    if name == "s3_down_from_the_start":
        bank.reset_counters()

    def end() -> None:
        if name == "s3_down_from_the_start":
            assert bank.counters().requests == 0
        wire.faults.clear()
        assert place.uploads() == []
        connect(monkeypatch, wire.port)

    trial(row, place, bank, end, **ONE_PART)
    assert fault.struck


@pytest.mark.parametrize("fault", HICCUPS, ids=lambda fault: f"{fault['operation']}-{fault['how']}-{fault['skip']}")
def test_s3_hiccups(heavy: Sandbox, bank: Sandbox, lake: Lake, wire: Wire, fault: Fault) -> None:
    """With the retries of an ordinary connection."""
    place = lake.place("transactions")
    publish_former(place, bank)
    struck = wire.fault(**fault)
    trial(ROWS["s3_hiccups"], place, bank, wire.faults.clear, **ONE_PART)
    assert struck.struck == 1


def test_a_manifest_that_is_stored_late(bank: Sandbox, lake: Lake, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no response, and the pull fails. Only then the store carries out the request."""
    row, place = ROWS["s3_manifest_late"], lake.place("transactions")
    publish_former(place, bank)
    connect(monkeypatch, wire.port, **QUICK)
    wire.fault("late", "put", MANIFEST)
    with pytest.raises(StorageError) as caught:
        pull(place)
    assert reads(row, caught.value)
    assert len(published(place)[1]) == FORMER
    wire.settle()
    check_rows(place, bank, row)
    wire.faults.clear()
    pull(place)
    assert only_published(place)[1] == bank.records()


@pytest.fixture
def alarm() -> Iterator[None]:
    """Set a signal that raises in the task, as for Airflow's `execution_timeout`."""

    def end(number: int, frame: object) -> None:
        raise AirflowTaskTimeout

    before = signal.signal(signal.SIGUSR1, end)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_task_that_is_ended_while_it_publishes(bank: Sandbox, lake: Lake, wire: Wire, alarm: None) -> None:
    row, place = ROWS["s3_ended_while_publishing"], lake.place("transactions")
    publish_former(place, bank)
    ended: list[Request] = []
    gone = threading.Event()

    def end(request: Request) -> None:
        if request.operation == "put" and request.key.endswith(MANIFEST) and not ended:
            ended.append(request)
            os.kill(os.getpid(), signal.SIGUSR1)
            # The pull has completed its clean-up before the store gets the request.
            gone.wait(120)

    wire.before = end
    with pytest.raises(AirflowTaskTimeout):
        pull(place)
    assert len(published(place)[1]) == FORMER
    gone.set()
    wait_until(lambda: len(published(place)[1]) == row.finds)
    check_rows(place, bank, row)
    pull(place)
    assert only_published(place)[1] == bank.records()
