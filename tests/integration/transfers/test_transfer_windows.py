# SPDX-License-Identifier: Apache-2.0
"""Windows pulled in parallel from a bank over real sockets, with one session."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroError, IntergiroRateLimited
from intergiro_provider.sandbox import Sandbox
from tests.integration.interrupting import when
from tests.integration.pulls import Said, bank, pull, said, shared_bank, transfer, written

pytestmark = pytest.mark.integration

__all__ = ["bank", "said", "shared_bank"]  # fixtures


def everything(**arguments: Any) -> dict[str, Any]:
    """Return the arguments of a pull of the whole list, in small pages."""
    now = datetime.now(UTC)
    bounds = {"created_from": now - timedelta(days=400), "created_to": now + timedelta(days=1)}
    return {**bounds, "query": {"limit": 10}, **arguments}


@pytest.mark.parametrize("windows", [2, 4, 16])
def test_every_record_once_byte_for_byte_in_order(bank: Sandbox, tmp_path: Path, windows: int) -> None:
    pull(tmp_path, endpoint="accounts")  # so that there is a session
    bank.reset_counters()
    bank.set(latency=0.01)
    manifest = pull(tmp_path, **everything(max_parallel_windows=windows))
    stored, records = written(tmp_path)
    assert stored == manifest
    assert records == bank.records()
    assert manifest["first_id"] == json.loads(records[0])["id"]
    assert manifest["last_id"] == json.loads(records[-1])["id"]
    counters = bank.counters()
    assert 1 < counters.connections <= windows
    assert counters.by_path["GET /v3/transactions"] < 2 * len(records) / 10


@pytest.mark.parametrize("from_inclusive", [True, False])
@pytest.mark.parametrize("to_inclusive", [True, False])
def test_whatever_the_banks_bounds_include(
    bank: Sandbox, tmp_path: Path, from_inclusive: bool, to_inclusive: bool
) -> None:
    bank.set(latency=0.005, created_from_inclusive=from_inclusive, created_to_inclusive=to_inclusive)
    start, end = (json.loads(bank.records()[number])["created_at"] for number in (50, 600))
    for bound in (start, end):
        bank.add_transactions(3, created_at=bound)
    pull(tmp_path, **everything(created_from=start, created_to=end))
    assert written(tmp_path)[1] == bank.records("/v3/transactions", start, end)


def test_expiry_under_sixteen_threads_is_one_renewal(bank: Sandbox, tmp_path: Path) -> None:
    bank.reset_counters()
    # The window of this request cannot end before the tokens have expired.
    bank.fault("latency", path="/v3/transactions", skip=20, times=1, seconds=2.0)
    expiry = when(lambda: bank.faults()[0]["struck"], bank.expire_access_tokens)
    pull(tmp_path, **everything(max_parallel_windows=16, query={"limit": 3}))
    expiry.join()
    assert written(tmp_path)[1] == bank.records()
    counters = bank.counters()
    assert (counters.logins, counters.refreshes, counters.refresh_early, counters.refresh_reused) == (0, 1, 0, 0)


def test_a_bank_that_allows_fewer_at_once_gets_fewer(bank: Sandbox, tmp_path: Path, said: Said) -> None:
    bank.set(latency=0.05, max_concurrency=3)
    pull(tmp_path, **everything(max_parallel_windows=8))
    assert written(tmp_path)[1] == bank.records()
    assert 1 <= bank.counters().too_many_requests < 30
    assert "The bank returned 429" in said()


def test_a_storm_of_429_is_weathered(bank: Sandbox, tmp_path: Path) -> None:
    bank.set(latency=0.02)
    bank.fault("rate_limit", path="/v3/transactions", skip=10, times=12, retry_after=1.0)
    pull(tmp_path, **everything(max_parallel_windows=8))
    assert written(tmp_path)[1] == bank.records()
    assert bank.counters().too_many_requests == 12


def test_a_bank_that_goes_on_refusing_fails_the_pull(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 2)
    former = pull(tmp_path, query={"limit": 100})
    bank.set(latency=0.01)
    bank.fault("rate_limit", path="/v3/transactions", skip=10, retry_after=0.0)
    with pytest.raises(IntergiroRateLimited):
        pull(tmp_path, **everything(max_parallel_windows=8))
    bank.clear_faults()
    assert written(tmp_path)[0] == former


@pytest.mark.parametrize("kind", ["drop", "drop_body", "status"])
def test_a_fault_in_one_window_leaves_the_former_result(
    bank: Sandbox, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 2)
    former = pull(tmp_path, query={"limit": 100})
    bank.set(latency=0.01)
    bank.fault(kind, path="/v3/transactions", skip=20)
    with pytest.raises(IntergiroError):
        pull(tmp_path, **everything(max_parallel_windows=8))
    assert written(tmp_path)[0] == former


def test_being_killed_does_not_wait_for_windows_that_hang(bank: Sandbox, tmp_path: Path) -> None:
    began = time.monotonic()
    former = pull(tmp_path, query={"limit": 100})
    a_pull = time.monotonic() - began
    bank.set(latency=0.01)
    bank.fault("hang", path="/v3/transactions", skip=20, seconds=600)
    operator = transfer(tmp_path, **everything(max_parallel_windows=8))
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        operator.on_kill()

    killer = when(lambda: bank.counters().faults["hang"], kill)
    with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
        operator.execute({})
    # Airflow sends SIGKILL after 5 s. A whole pull takes a tenth of a second here, and longer on a slow machine.
    assert time.monotonic() - killed[0] < 4 + 5 * a_pull
    killer.join()
    bank.clear_faults()
    assert written(tmp_path)[0] == former


def test_progress_names_windows_and_the_share(
    bank: Sandbox, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intergiro_provider.pull import pull as pulling
    from intergiro_provider.pull.progress import Progress

    monkeypatch.setattr(pulling, "Progress", lambda log, what: Progress(log, what, every=0.2))
    bank.set(latency=0.1)
    pull(tmp_path, **everything(max_parallel_windows=4))
    text = said()
    assert "% of the interval, " in text
    assert " windows done" in text
