# SPDX-License-Identifier: Apache-2.0
"""All operators in a DAG: the features that every operator must have."""

from __future__ import annotations

import inspect
from itertools import combinations
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

OPERATORS = (IntergiroOperator, IntergiroToObjectStorageOperator, IntergiroSensor)
DEFAULTS = {
    "intergiro_conn_id": "bank",
    "pool": "bank_pool",
    "retries": 5,
    "headers": {"X": "1"},
    "compression": "gzip",
}
NEEDED: dict[type, dict[str, Any]] = {
    IntergiroOperator: {"endpoint": "accounts"},
    IntergiroToObjectStorageOperator: {"endpoint": "accounts", "path": "file:///x"},
    IntergiroSensor: {"endpoint": "accounts", "response_check": "checks.has_records"},
}

every_operator = pytest.mark.parametrize("operator", OPERATORS)


OWN = {IntergiroOperator: ("headers", {"X": "1"}), IntergiroToObjectStorageOperator: ("compression", "gzip")}


def ours_of(task: Any) -> tuple[Any, ...]:
    name, _ = OWN.get(type(task), ("response_check", None))
    return task.intergiro_conn_id, task.pool, task.retries, getattr(task, name)


def expected(operator: Any) -> tuple[Any, ...]:
    _, value = OWN.get(operator, ("", "checks.has_records"))
    return "bank", "bank_pool", 5, value


class TestDefaultArgs:
    @every_operator
    def test_reach_a_task(self, operator: Any) -> None:
        with DAG("dag", schedule=None, default_args=DEFAULTS):
            task = operator(task_id="task", **NEEDED[operator])
        assert ours_of(task) == expected(operator)

    @every_operator
    def test_reach_a_mapped_task(self, operator: Any) -> None:
        with DAG("dag", schedule=None, default_args=DEFAULTS):
            mapped = operator.partial(task_id="task").expand_kwargs([NEEDED[operator]])
        assert (mapped.pool, mapped.retries) == ("bank_pool", 5)
        task = mapped.unmap(NEEDED[operator])
        assert ours_of(task) == expected(operator)

    @every_operator
    def test_give_way_to_what_a_task_says(self, operator: Any) -> None:
        with DAG("dag", schedule=None, default_args=DEFAULTS):
            own = {"pool": "default_pool", "intergiro_conn_id": "own", "retries": 0, "trigger_rule": "all_done"}
            task = operator(task_id="task", priority_weight=9, **own, **NEEDED[operator])
        assert ours_of(task)[:3] == ("own", "default_pool", 0)
        assert (task.trigger_rule, task.priority_weight) == ("all_done", 9)


class TestMapped:
    def test_bodies(self) -> None:
        with DAG("dag", schedule=None):
            mapped = IntergiroOperator.partial(task_id="pay", endpoint="transactions/pay", method="POST").expand(
                json=[{"amount": 1}, {"amount": 2}]
            )
        tasks = [mapped.unmap({"json": {"amount": amount}}) for amount in (1, 2)]
        assert [(task.method, task.endpoint, task.json) for task in tasks] == [
            ("POST", "transactions/pay", {"amount": amount}) for amount in (1, 2)
        ]

    @every_operator
    def test_links_and_rendering_are_those_of_the_operator(self, operator: Any) -> None:
        with DAG("dag", schedule=None):
            mapped = operator.partial(task_id="task").expand_kwargs([NEEDED[operator]])
        assert [link.name for link in mapped.operator_extra_links] == [
            link.name for link in operator.operator_extra_links
        ]
        assert mapped.template_fields == operator.template_fields
        assert mapped.template_fields_renderers == operator.template_fields_renderers


class TestLook:
    @every_operator
    def test_renderers_are_of_fields_that_are_rendered(self, operator: Any) -> None:
        assert set(operator.template_fields_renderers) <= set(operator.template_fields)
        assert set(operator.template_fields_renderers.values()) == {"json"}

    @every_operator
    def test_every_argument_that_names_or_selects_is_templated(self, operator: Any) -> None:
        constants = {
            "response_check", "response_filter", "extra_options", "file_format", "parquet_timestamps", "compression",
            "max_parallel_windows", "lookback", "watermark", "deferrable", "kwargs", "self",
        }  # fmt: skip
        arguments = set(inspect.signature(operator.__init__).parameters) - constants
        assert arguments == set(operator.template_fields)

    @every_operator
    def test_black_text_is_legible_on_the_colour(self, operator: Any) -> None:
        assert operator.ui_fgcolor == "#000"
        assert (luminance(operator.ui_color) + 0.05) / 0.05 >= 7  # level AAA of WCAG

    def test_colours_differ(self) -> None:
        for one, other in combinations(OPERATORS, 2):
            assert one.ui_color != other.ui_color


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb, as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
