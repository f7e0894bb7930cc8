# SPDX-License-Identifier: Apache-2.0
"""The bank fails during a pull of sixteen windows to the local disk: the rows of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.interrupting import when
from tests.integration.pulls import CONNECTION
from tests.integration.storage.places import Folder
from tests.integration.storage.table import GOES_ON, ROWS
from tests.integration.storage.trial import publish_former, trial

pytestmark = pytest.mark.integration

Fault = dict[str, Any]

FAULTS: dict[str, list[Fault]] = {
    "storm_in_seconds": [{"kind": "rate_limit", "times": 24, "retry_after": 1.0}],
    "storm_as_a_date": [{"kind": "rate_limit", "times": 24, "retry_after": 1.0, "as_date": True}],
    "storm_without_a_word": [{"kind": "rate_limit", "times": 24, "retry_after": None}],
    "storm_for_good": [{"kind": "rate_limit", "retry_after": 0.0}],
    "bodies_cut": [{"kind": "drop_body", "times": 8}],
    "bodies_cut_for_good": [{"kind": "drop_body"}],
    "resets": [{"kind": "drop", "reset": True, "times": 8}],
    "resets_for_good": [{"kind": "drop", "reset": True}],
    "errors": [{"kind": "status", "status": status, "times": 2} for status in (500, 502, 503, 504)],
    "errors_for_good": [{"kind": "status", "status": 503}],
    "silence": [{"kind": "hang", "times": 4}],
    "silence_for_good": [{"kind": "hang"}],
    "garbled": [{"kind": "garbled", "how": "cut"}],
}
WINDOWS: dict[str, Any] = {"max_parallel_windows": 16, "query": {"limit": 10}}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(bank: Sandbox, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, place = ROWS[name], Folder(tmp_path)
    publish_former(place, bank)
    bank.reset_counters()
    bank.set(latency=0.01)
    if name.startswith("silence"):
        monkeypatch.setenv(CONNECTION, bank.connection(max_logins_per_hour=50, read_timeout=3))
    if row.does != GOES_ON:
        monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 2)
    for fault in FAULTS[name]:
        bank.fault(path="/v3/transactions", skip=20, **fault)
    error = trial(row, place, bank, bank.clear_faults, **WINDOWS)
    counters = bank.counters()
    assert sum(counters.faults.values()) >= sum(fault.get("times", 1) for fault in FAULTS[name])
    assert (counters.logins, counters.refresh_early, counters.refresh_reused) == (0, 0, 0)
    assert not any(secret in str(error) for secret in [bank.api_key, *bank.tokens()])


STRIKES = {"token_expires": Sandbox.expire_access_tokens, "session_ends": Sandbox.end_sessions}


@pytest.mark.parametrize("name", STRIKES)
def test_session(bank: Sandbox, tmp_path: Path, name: str) -> None:
    place = Folder(tmp_path)
    publish_former(place, bank)
    bank.reset_counters()
    # The window of this request cannot end before the strike.
    bank.fault("latency", path="/v3/transactions", skip=20, times=1, seconds=2.0)
    strike = when(lambda: bank.faults()[0]["struck"], lambda: STRIKES[name](bank))
    trial(ROWS[name], place, bank, strike.join, **{**WINDOWS, "query": {"limit": 3}})
    counters = bank.counters()
    assert (counters.refreshes, counters.logins) == ((1, 0) if name == "token_expires" else (0, 1))
    assert counters.refresh_early == 0
