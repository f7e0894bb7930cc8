# SPDX-License-Identifier: Apache-2.0
"""IntergiroOperator's arguments; the integration tests cover its requests."""

from __future__ import annotations

from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.operators.intergiro import IntergiroOperator


def operator(**arguments: Any) -> IntergiroOperator:
    return IntergiroOperator(**{"task_id": "call", "endpoint": "accounts", **arguments})


def test_defaults() -> None:
    made = operator()
    assert (made.method, made.query, made.json, made.headers) == ("GET", None, None, None)
    assert (made.response_check, made.response_filter) == (None, None)
    assert made.intergiro_conn_id == "intergiro_default"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"json": {"a": 1}}, "`json` is the body, and a GET request has none"),
        ({"method": "head", "json": []}, "`json` is the body, and a HEAD request has none"),
        (
            {"extra_options": {"timeot": 5, "retry": False}},
            "`extra_options` holds timeot. It must be a dict with .* timeout, ",
        ),
        ({"extra_options": [("timeout", 5)]}, "`extra_options` is a list. It must be a dict with "),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(IntergiroValueError, match=named):
        operator(**arguments)


def test_templated_fields() -> None:
    made = operator(
        endpoint="{{ e }}", method="{{ m }}", json={"list": ["{{ j }}"], "number": 7}, headers={"X-A": "{{ h }}"},
        intergiro_conn_id="{{ c }}",
    )  # fmt: skip
    made.render_template_fields({name: name.upper() for name in "emjhc"})  # type: ignore[typeddict-item]
    assert (made.endpoint, made.method, made.intergiro_conn_id) == ("E", "M", "C")
    assert (made.json, made.headers) == ({"list": ["J"], "number": 7}, {"X-A": "H"})
    made = operator(query={"limit": "{{ d }}"})
    made.render_template_fields({"d": 5})  # type: ignore[typeddict-unknown-key]
    assert made.query == {"limit": "5"}
