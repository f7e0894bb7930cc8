# SPDX-License-Identifier: Apache-2.0
"""How Dagster handles the errors, in real runs."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from dagster_intergiro.errors import dagster_errors
from intergiro_provider.exceptions import BankUnavailable
from intergiro_provider.sandbox import Sandbox
from tests.dagster.test_assets import IntergiroPull, assets_of, materialize, resource_of


def run(bank: Sandbox, path: Path, **fields: Any) -> dg.ExecuteInProcessResult:
    policy = dg.RetryPolicy(max_retries=3)
    assets = assets_of(IntergiroPull(endpoint="transactions", path=str(path)), retry_policy=policy)
    resources = {"intergiro": resource_of(bank, **fields)}
    return dg.materialize([assets], resources=resources, raise_on_error=False)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return str(event.step_failure_data.user_failure_data.description)


def retries_of(result: dg.ExecuteInProcessResult) -> list[float | None]:
    events = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    return [event.event_specific_data.seconds_to_wait for event in events]


def test_a_wrong_key_is_tried_once_whatever_the_retry_policy_says(sandbox: Sandbox, tmp_path: Path) -> None:
    result = run(sandbox, tmp_path / "x", api_key="wrong")
    assert "API key" in failure_of(result)
    assert retries_of(result) == []
    assert sandbox.counters().login_refused == 1


def test_a_request_that_the_bank_does_not_accept_is_not_retried(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("status", "/v3/transactions", status=403)
    result = run(sandbox, tmp_path / "x")
    assert "403" in failure_of(result)
    assert retries_of(result) == []


def test_a_transient_error_is_retried(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("repeat_record", "/v3/transactions", times=1)
    result = run(sandbox, tmp_path / "x")
    assert result.success
    assert len(retries_of(result)) == 1


def test_a_longer_wait_than_15_minutes_is_a_failure_with_the_time(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("status", "/v3/transactions", status=429, retry_after="1000")
    result = run(sandbox, tmp_path / "x")
    assert re.search(r"run it again from 2\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", failure_of(result))
    assert retries_of(result) == []


@pytest.mark.parametrize(
    ("asked", "policy", "attempt", "retries", "wait"),
    [
        (120.0, None, 0, 3, 120),
        (None, None, 0, 3, 30),
        (None, None, 2, 3, 120),
        (None, dg.RetryPolicy(max_retries=7, delay=5, backoff=dg.Backoff.EXPONENTIAL), 1, 7, 15),
        (900.0, dg.RetryPolicy(max_retries=7, delay=5), 1, 7, 900),
    ],
)
def test_a_retry_waits_as_the_bank_asks_and_at_least_as_the_policy_says(
    asked: float | None, policy: dg.RetryPolicy | None, attempt: int, retries: int, wait: float
) -> None:
    step = SimpleNamespace(op_retry_policy=policy)
    context: Any = SimpleNamespace(
        retry_number=attempt, log=logging.getLogger(), get_step_execution_context=lambda: step
    )
    with pytest.raises(dg.RetryRequested) as raised, dagster_errors(context):
        raise BankUnavailable("down", retry_after=asked)
    assert (raised.value.max_retries, raised.value.seconds_to_wait) == (retries, wait)


def test_the_session_is_told_of_in_the_log_of_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assets = assets_of(IntergiroPull(endpoint="transactions", path=str(tmp_path / "x")))
        result = materialize(sandbox, assets, instance=instance)
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert len([line for line in lines if line.startswith("Logged in to Intergiro")]) == 1
