# SPDX-License-Identifier: Apache-2.0
"""The tables of the reference pages name the settings and parameters of the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

from intergiro_provider import exceptions
from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.operators.payments import IntergiroBulkPaymentOperator, IntergiroPaymentOperator
from intergiro_provider.sandbox.__main__ import parser
from intergiro_provider.sandbox.settings import Settings
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
from intergiro_provider.transfers.intergiro_to_sql import IntergiroToSqlOperator
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger
from tests.integration.docs.snippets import ROOT

pytestmark = pytest.mark.integration

FORM = get_provider_info()["connection-types"][0]["conn-fields"]
ON_THE_OPERATORS_PAGE = (
    IntergiroToObjectStorageOperator,
    IntergiroToSqlOperator,
    IntergiroOperator,
    IntergiroPaymentOperator,
    IntergiroBulkPaymentOperator,
    IntergiroSensor,
    IntergiroEventTrigger,
)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the tables under a heading, by the names in their first cells."""
    text = (ROOT / "docs" / "reference" / page).read_text()
    _, _, section = text.partition(f"\n## {heading}\n")
    found = {}
    for line in re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0].splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
            found.update(dict.fromkeys(re.findall(r"`(\w+)`", first), cells))
    return found


def parameters(cls: Any) -> set[str]:
    return set(inspect.signature(cls.__init__).parameters) - {"self", "args", "kwargs"}


@pytest.mark.parametrize("name", sorted(FORM))
def test_settings_of_the_connection(name: str) -> None:
    kind, default, _ = rows("connection.md", "Settings in the extra")[name]
    field = FORM[name]
    schema = field["schema"]
    assert kind.startswith(" or ".join(f'`"{value}"`' for value in schema.get("enum", ())) or schema["type"][0])
    assert str(schema.get("maximum", "")) in kind
    if said := re.search(r"Empty: (\w+)\.", field["description"]):
        assert default.strip('`"') == said[1]


def test_no_setting_of_the_connection_is_made_up() -> None:
    assert set(rows("connection.md", "Settings in the extra")) == set(FORM)


@pytest.mark.parametrize("cls", ON_THE_OPERATORS_PAGE)
def test_parameters(cls: Any) -> None:
    assert set(rows("operators.md", cls.__name__)) == parameters(cls)


@pytest.mark.parametrize("cls", ON_THE_OPERATORS_PAGE)
def test_templated_parameters_are_marked(cls: Any) -> None:
    marked = {name for name, cells in rows("operators.md", cls.__name__).items() if "templated" in cells[-1]}
    assert marked == set(getattr(cls, "template_fields", ()))


@pytest.mark.parametrize("cls", ON_THE_OPERATORS_PAGE)
def test_defaults(cls: Any) -> None:
    for name, (default, _) in rows("operators.md", cls.__name__).items():
        value = inspect.signature(cls.__init__).parameters[name].default
        if value is inspect.Parameter.empty:
            assert default == "required", name
        elif isinstance(value, str):
            assert default == f'`"{value}"`', name
        elif isinstance(value, bool):
            assert default == f"`{value}`", name
        elif isinstance(value, (int, float)):
            assert default == f"{value:g}", name


def test_methods_and_parameters_of_the_hook() -> None:
    named = set(rows("hook.md", "Methods"))
    assert parameters(IntergiroHook) <= named


@pytest.mark.parametrize("name", sorted(set(exceptions.__all__) - {"IntergiroError", "IntergiroApiError"}))
def test_every_exception_has_a_row(name: str) -> None:
    text = (ROOT / "docs" / "reference" / "exceptions.md").read_text()
    row = next((line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line.split(" | ")[0]), "")
    assert ("(final)" in row) == issubclass(getattr(exceptions, name), exceptions.AirflowFailException), row
    assert row


def test_options_of_the_sandbox() -> None:
    """Every option has a row, and every setting's row has the text of ``--help``."""
    _, _, section = (ROOT / "docs" / "reference" / "sandbox.md").read_text().partition("\n## Options\n")
    options = {action.option_strings[0] for action in parser()._actions} - {"-h"}
    assert set(re.findall(r"`(--[a-z0-9-]+)`", section)) == options
    missing = [setting.name for setting in dataclasses.fields(Settings) if setting.metadata["help"] not in section]
    assert missing == []
