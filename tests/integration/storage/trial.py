# SPDX-License-Identifier: Apache-2.0
"""A pull over a previous result during a fault. A reader checks the result then, and after the next pull."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from intergiro_provider.sandbox import Sandbox
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from tests.integration.storage.places import MANIFEST, Place, only_published, published
from tests.integration.storage.table import ENDED, FINALLY, FORMER, GOES_ON, NEW, RETRIABLY, Row

TASK: Any = {"ti": SimpleNamespace(dag_id="nightly", task_id="pull", run_id="2026-01-01", map_index=-1)}
"""All pulls here are attempts of one task."""


def transfer(place: Place | str, **arguments: Any) -> IntergiroToObjectStorageOperator:
    """Return the operator for the whole list, in order."""
    now = datetime.now(UTC)
    everything = {"created_from": now - timedelta(days=400), "created_to": now + timedelta(days=1)}
    url = place if isinstance(place, str) else place.url
    return IntergiroToObjectStorageOperator(
        **{"task_id": "pull", "endpoint": "transactions", "path": url, **everything, **arguments}
    )


def pull(place: Place | str, **arguments: Any) -> dict[str, Any]:
    """Execute the operator."""
    return transfer(place, **arguments).execute(TASK)


def execute_in_thread(operator: IntergiroToObjectStorageOperator) -> None:
    """Execute the operator in a new thread, where Airflow 2 allows a direct call of `execute`."""
    try:
        from airflow.models.baseoperator import ExecutorSafeguard
    except ImportError:  # Airflow 3
        pass
    else:
        ExecutorSafeguard._sentinel.callers = {}
    operator.execute({})


def publish_former(place: Place, bank: Sandbox, **arguments: Any) -> None:
    """Publish the first FORMER rows of the list, as the previous result."""
    records = bank.records()
    assert len(records) == NEW
    end = json.loads(records[FORMER])["created_at"]
    assert pull(place, created_to=end, **arguments)["rows"] == FORMER


def check_rows(place: Place, bank: Sandbox, row: Row) -> None:
    """Check that a reader finds the rows that the table promises."""
    if not row.finds:
        assert MANIFEST not in place.names()
        return
    _, records = published(place) if row.leaves else only_published(place)
    assert len(records) == row.finds
    assert records == bank.records()[: row.finds]


def reads(row: Row, error: BaseException | None) -> bool:
    """Return whether an error has the text of the row."""
    return re.search(".*".join(re.escape(part.strip()) for part in row.reads.split("…")), str(error)) is not None


def trial(row: Row, place: Place, bank: Sandbox, end: Callable[[], object], **arguments: Any) -> BaseException | None:
    """Pull during a fault, check the result, end the fault with `end`, and pull again. Return the error."""
    error: BaseException | None = None
    try:
        pull(place, **arguments)
    except BaseException as raised:
        error = raised
    does = GOES_ON if error is None else FINALLY if isinstance(error, AirflowFailException) else RETRIABLY
    assert (does, type(error).__name__) == (row.does, row.error or "NoneType"), repr(error)
    assert row.does != ENDED
    assert reads(row, error), str(error)
    end()
    check_rows(place, bank, row)
    pull(place)
    assert only_published(place)[1] == bank.records()
    return error
