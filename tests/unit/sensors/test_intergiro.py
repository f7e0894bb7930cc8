# SPDX-License-Identifier: Apache-2.0
"""IntergiroSensor's arguments; the integration tests cover its requests."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.sensors.checks import has_records
from intergiro_provider.sensors.intergiro import IntergiroSensor

PATH = "intergiro_provider.sensors.checks.has_records"


def sensor(**arguments: Any) -> IntergiroSensor:
    return IntergiroSensor(**{"task_id": "wait", "endpoint": "accounts", "response_check": PATH, **arguments})


def test_defaults() -> None:
    made = sensor()
    assert (made.query, made.deferrable, made.intergiro_conn_id) == (None, False, "intergiro_default")


def test_deferrable_takes_an_import_path() -> None:
    assert sensor(deferrable=True).deferrable
    with pytest.raises(IntergiroValueError, match="import path of a function that the triggerer can import"):
        sensor(deferrable=True, response_check=lambda response: True)
    assert not sensor(deferrable=False, response_check=lambda response: True).deferrable


@pytest.mark.parametrize(("default", "expected"), [("True", True), ("False", False)])
def test_the_default_is_the_deployments(monkeypatch: pytest.MonkeyPatch, default: str, expected: bool) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", default)
    assert sensor().deferrable is expected
    assert sensor(deferrable=not expected).deferrable is not expected
    # The default of the deployment must not raise an error in this DAG.
    assert sensor(response_check=has_records).deferrable is False


@pytest.mark.parametrize("path", ["", "is_booked", "my_checks:is_booked", "my checks.is", "a.b()", 3, None])
def test_what_is_no_function_and_no_path(path: Any) -> None:
    with pytest.raises(IntergiroValueError, match="`response_check`"):
        sensor(response_check=path)


def test_templated_fields() -> None:
    made = sensor(endpoint="{{ e }}", query={"statuses": ["{{ d }}"]}, intergiro_conn_id="{{ c }}")
    made.render_template_fields({name: name.upper() for name in "edc"})  # type: ignore[typeddict-item]
    assert (made.endpoint, made.query, made.intergiro_conn_id) == ("E", {"statuses": ["D"]}, "C")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"data": [], "has_more": false}', False),
        (b'{"data": [{}], "has_more": false}', True),
        (b"[]", False),
        (b"[{}]", True),
    ],
)
def test_has_records(body: bytes, expected: bool) -> None:
    response = requests.Response()
    response._content = body
    assert has_records(response) is expected
