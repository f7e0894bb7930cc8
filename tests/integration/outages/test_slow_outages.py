# SPDX-License-Identifier: Apache-2.0
"""A slow Airflow API and many hosts: real processes, with the timings of production."""

from __future__ import annotations

from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.integration.outages.airflow3 import Server
from tests.integration.outages.hosts import run_hosts, summary
from tests.integration.outages.table import GOES_ON, Row

pytestmark = [
    pytest.mark.integration,
    pytest.mark.exhaustive,
    pytest.mark.timeout(0),
    pytest.mark.parametrize("sandbox", [{"access_token_life": 30.0, "session_life": 3600.0}], indirect=True),
]

HOSTS = 16
SECONDS = 100.0


def slow_api(sandbox: Sandbox, api_server: Server, row: Row, folder: Path, delay: float) -> None:
    """Run sixteen hosts without a session for about three lifetimes of an access token."""
    api_server.api.delay = delay
    try:
        connection = sandbox.connection()
        told = run_hosts(HOSTS, api_server.url, connection, folder, SECONDS)
    finally:
        api_server.api.delay = 0.0
    counters = sandbox.counters()
    print(f"\n{delay} s a call: {counters.logins} logins, {counters.refreshes} refreshes; {summary(told)}")
    assert row.does == GOES_ON
    assert [one.errors for one in told] == [[]] * HOSTS
    assert counters.logins - 1 == row.logins
    assert counters.refreshes >= 2
    assert (counters.refresh_early, counters.refresh_reused, counters.refresh_refused) == (0, 0, 0)


def test_api_of_three_tenths_of_a_second(sandbox: Sandbox, api_server: Server, row: Row, tmp_path: Path) -> None:
    slow_api(sandbox, api_server, row, tmp_path, 0.3)


def test_api_of_half_a_second(sandbox: Sandbox, api_server: Server, row: Row, tmp_path: Path) -> None:
    slow_api(sandbox, api_server, row, tmp_path, 0.5)
