# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dagster_intergiro import build_intergiro_sensor
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.sandbox import Sandbox
from tests.dagster.test_assets import resource_of

job = dg.define_asset_job("nightly")


def evaluate(sensor: dg.SensorDefinition, bank: Sandbox, cursor: str | None) -> dg.SensorResult:
    resources = {"intergiro": resource_of(bank)}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, cursor, resources=resources) as context,
    ):
        data = sensor.evaluate_tick(context)
    return dg.SensorResult(run_requests=data.run_requests, cursor=data.cursor)


def test_new_records_make_one_run_request(sandbox: Sandbox) -> None:
    sensor = build_intergiro_sensor(name="news", endpoint="transactions", job=job)
    first = evaluate(sensor, sandbox, None)
    assert not first.run_requests
    assert not evaluate(sensor, sandbox, first.cursor).run_requests

    ids = sandbox.add_transactions(3)
    second = evaluate(sensor, sandbox, first.cursor)
    (request,) = second.run_requests or ()
    assert request.run_key
    assert {"intergiro/endpoint", "intergiro/created_from", "intergiro/created_to"} <= set(request.tags)
    assert not [identity for identity in ids if identity in str(request)]
    assert not evaluate(sensor, sandbox, second.cursor).run_requests


def test_run_requests_of_ones_own(sandbox: Sandbox) -> None:
    seen: list[Any] = []

    def requests(news: Any) -> list[dg.RunRequest]:
        seen.append(news)
        return [dg.RunRequest(run_key=identity) for identity in news["ids"]]

    sensor = build_intergiro_sensor(name="news", endpoint="transactions", job=job, run_requests=requests)
    first = evaluate(sensor, sandbox, None)
    ids = sandbox.add_transactions(2)
    requested = evaluate(sensor, sandbox, first.cursor).run_requests or ()
    assert {request.run_key for request in requested} == set(ids)
    assert seen[0]["more"] is False


def test_a_query_that_decides_about_pages_is_refused() -> None:
    with pytest.raises(IntergiroValueError, match="`limit`"):
        build_intergiro_sensor(name="news", endpoint="transactions", query={"limit": 5}, job=job)
