# SPDX-License-Identifier: Apache-2.0
"""The statements about this provider in `docs/comparison.md` are true."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider import exceptions
from intergiro_provider.api import retries
from intergiro_provider.api.settings import read_settings
from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator, IntergiroPaymentOperator
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator
from intergiro_provider.triggers import intergiro as triggers
from intergiro_provider.triggers import payments as payment_triggers

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPERATORS = (IntergiroOperator, IntergiroSensor, IntergiroToObjectStorageOperator)
MORE = (IntergiroPaymentOperator, IntergiroBulkPaymentOperator, IntergiroToSqlOperator)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def ours() -> dict[str, str]:
    """Return the cells of our column, by the first cell of the row."""
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "comparison.md").read_text().splitlines()]
    return {row[0]: row[-1] for row in rows if len(row) in (4, 5) and not row[0].startswith("---")}


@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("own fields in the form", len(get_provider_info()["connection-types"][0]["conn-fields"])),
        ("triggers", sum(issubclass(each, triggers.BaseTrigger) and each.__module__ == module.__name__
                         for module in (triggers, payment_triggers)
                         for each in vars(module).values() if inspect.isclass(each))),
        ("metrics", len(re.findall(r"^\| `intergiro\.", (ROOT / "docs/reference/metrics.md").read_text(), re.M))),
        ("example DAGs", len(list((ROOT / "dags_examples").glob("*.py")))),
    ],
)  # fmt: skip
def test_what_is_counted(point: str, count: int) -> None:
    assert re.search(rf"\b{NUMBERS[count]}\b", ours()[point]), ours()[point]


def test_numbers() -> None:
    settings = read_settings(host=None, port=None, schema=None, password="k", extra={}, conn_id="c")
    assert (settings.connect_timeout, settings.read_timeout) == (5, 60)
    assert ours()["default timeouts"] == "5 s to connect, 60 s between bytes"
    tries = f"up to {NUMBERS[retries.ATTEMPTS]} within {NUMBERS[round(retries.DEADLINE / 60)]} minutes"
    assert ours()["default attempts per request"] == tries
    named = {int(status) for status in re.findall(r"\b\d{3}\b", ours()["retried after"])}
    assert named | {500, 502, 503, 504, *range(520, 531)} == retries.RETRIED_STATUSES


def test_package() -> None:
    assert re.findall(r"`(.+?)`", ours()["extras"]) == sorted(PROJECT["optional-dependencies"])
    versions = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", each)]
    assert ours()["Python"] == f"{versions[0]} to {versions[-1]}"
    assert (ROOT / "intergiro_provider" / "py.typed").exists()
    assert ours()["licence"] == PROJECT["license"]


def test_what_is_said_to_be_missing_is() -> None:
    info: dict[str, Any] = get_provider_info()
    assert "urls" not in PROJECT
    assert "notifications" not in info
    assert not {"logo", "how-to-guide"} & set(info["integrations"][0])
    assert not [name for name, each in vars(IntergiroHook).items() if inspect.iscoroutinefunction(each)]
    for operator in (IntergiroOperator, IntergiroSensor):
        assert not {"request_kwargs", "hook_params"} & set(inspect.signature(operator.__init__).parameters)
    assert not {"extra_options", "headers"} & set(inspect.signature(IntergiroSensor.__init__).parameters)
    assert [each for each in OPERATORS if "deferrable" in inspect.signature(each.__init__).parameters] == [
        IntergiroSensor
    ]


def test_what_is_said_to_be_there_is() -> None:
    assert len({each.ui_color for each in OPERATORS}) == 3
    assert all("json" in each.template_fields_renderers.values() for each in OPERATORS)
    assert [link.name for link in IntergiroToObjectStorageOperator.operator_extra_links] == [
        "Manifest", "Intergiro portal",
    ]  # fmt: skip
    assert hasattr(IntergiroToObjectStorageOperator, "get_openlineage_facets_on_complete")
    assert {"watermark", "lookback"} <= set(inspect.signature(IntergiroToObjectStorageOperator.__init__).parameters)
    assert "extra_options" in inspect.signature(IntergiroOperator.__init__).parameters
    assert issubclass(exceptions.IntergiroNotFound, exceptions.AirflowFailException)
    assert get_provider_info()["cli"]
    for name in re.findall(r"`(Intergiro\w+)`", " ".join(ours().values())):
        assert any(name == each.__name__ for each in (*OPERATORS, *MORE, IntergiroHook, *vars(triggers).values())
                   if inspect.isclass(each)), name  # fmt: skip
