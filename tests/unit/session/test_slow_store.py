# SPDX-License-Identifier: Apache-2.0
"""Sixteen hosts with a slow Airflow API, in the simulated world."""

from __future__ import annotations

from statistics import median

import pytest

from intergiro_provider.exceptions import StoreUnavailable
from tests.unit.session.actors import Variant
from tests.unit.session.bank import Bank
from tests.unit.session.faults import Fault, Script, write
from tests.unit.session.scene import LIFE, scene, with_session

HOSTS = "abcdefghijklmnop"


@pytest.mark.parametrize("seconds", [0.3, 0.5])
def test_a_slow_api_delays_sixteen_hosts_and_costs_nothing_else(
    variant: Variant, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = scene(variant, HOSTS, bank=Bank("revoke", LIFE), gap=0.0)
    monkeypatch.setattr(world.variables, "way", lambda effect: (seconds / 2, seconds / 2))
    with_session(world)
    world.run(3 * LIFE)

    bank = world.bank
    assert (bank.logins, bank.early, bank.reused, bank.refused_ended) == ([], 0, 0, 0)
    assert bank.refreshes == 3
    assert not any(worker.errors for worker in world.workers)
    waits = [worker.renewed[1][0] for worker in world.workers]
    print(
        f"{seconds} s a call: the first renewal takes {median(waits):.1f} s at the median, {max(waits):.1f} s at most"
    )


def test_an_api_that_is_too_slow_is_an_error_and_no_call(variant: Variant) -> None:
    world = scene(variant, "a", faults=Script().on("a", write("lease"), Fault("slow", 0.9), times=2))
    with_session(world)
    world.run(20.0)
    assert isinstance(world["a"].error, StoreUnavailable)
    assert "lock_conn_id" in str(world["a"].error)
    assert world.bank.refreshes == 0
