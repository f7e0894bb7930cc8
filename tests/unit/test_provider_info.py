# SPDX-License-Identifier: Apache-2.0
"""The provider info: Airflow accepts it, and everything that it names exists.

A mistake in it makes every `airflow` command of a deployment fail. So Airflow's own schemas and manager check it, in
the version that the tests run on.
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import jsonschema
import pytest

import intergiro_provider
from intergiro_provider.get_provider_info import get_provider_info

DISTRIBUTION = "airflow-provider-intergiro"


def airflow_schema(name: str) -> dict[str, Any]:
    """Return one of the JSON schemas that Airflow's package carries."""
    schema: dict[str, Any] = json.loads((files("airflow") / name).read_text())
    return schema


def modules_named(info: dict[str, Any]) -> list[str]:
    """Return every module that the info names."""
    modules = [module for kind in ("operators", "hooks", "sensors", "triggers") for module in _modules(info, kind)]
    return modules + [transfer["python-module"] for transfer in info["transfers"]]


def _modules(info: dict[str, Any], kind: str) -> list[str]:
    return [module for item in info.get(kind, []) for module in item["python-modules"]]


def test_entry_point_leads_to_the_function() -> None:
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist and point.dist.name == DISTRIBUTION
    ]
    assert [point.name for point in found] == ["provider_info"]
    assert found[0].load() is get_provider_info


def test_satisfies_the_schema_that_airflow_enforces_at_run_time() -> None:
    jsonschema.validate(get_provider_info(), airflow_schema("provider_info.schema.json"))


def test_the_schema_of_airflow_would_notice_a_mistake() -> None:
    info = get_provider_info()
    info["transfers"][0]["python-modules"] = ["x"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(info, airflow_schema("provider_info.schema.json"))


def reads_conn_fields() -> bool:
    schema = airflow_schema("provider.yaml.schema.json")["properties"]["connection-types"]
    return "conn-fields" in schema["items"]["properties"]


def test_connection_form_satisfies_the_strict_schema() -> None:
    """The run-time schema does not check conn-fields. The schema for provider.yaml does (Airflow 3.2 and later)."""
    if not reads_conn_fields():
        pytest.skip("this Airflow has no conn-fields: the form comes from the hook")
    schema = airflow_schema("provider.yaml.schema.json")["properties"]
    info = get_provider_info()
    jsonschema.validate(info["connection-types"], schema["connection-types"])
    jsonschema.validate(info["integrations"], schema["integrations"])


def test_names_are_canonical() -> None:
    info = get_provider_info()
    assert info["package-name"] == DISTRIBUTION
    assert re.sub(r"[-_.]+", "-", info["package-name"]).lower() == info["package-name"]


def test_version_has_one_source() -> None:
    assert get_provider_info()["versions"] == [intergiro_provider.__version__]
    assert version(DISTRIBUTION) == intergiro_provider.__version__


@pytest.mark.parametrize("module", modules_named(get_provider_info()))
def test_every_module_named_imports(module: str) -> None:
    importlib.import_module(module)


def test_hook_class_is_there_and_serves_the_connection_type() -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    module, _, name = connection_type["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert hook.conn_type == connection_type["connection-type"] == "intergiro"
    assert hook.hook_name == connection_type["hook-name"]
    assert hook.default_conn_name == "intergiro_default"
    assert hook.conn_name_attr == "intergiro_conn_id"


def test_every_field_of_the_form_is_optional_and_has_no_default() -> None:
    """A type without null makes a field required. A default would be saved as if the user had set it."""
    (connection_type,) = get_provider_info()["connection-types"]
    fields = connection_type["conn-fields"]
    assert set(fields) == {
        "api",
        "environment",
        "lock_conn_id",
        "max_logins_per_hour",
        "connect_timeout",
        "read_timeout",
        "verify",
        "proxies",
        "headers",
    }
    for name, field in fields.items():
        assert "null" in field["schema"]["type"], name
        assert "default" not in field["schema"], name
        assert field["description"].endswith("."), name


def test_importing_it_imports_nothing_of_airflow() -> None:
    """Airflow reads it while the import of airflow itself is incomplete."""
    code = (
        "import sys, intergiro_provider.get_provider_info as info; info.get_provider_info();"
        "print([name for name in sys.modules if name.split('.')[0] in ('airflow', 'requests', 'msgspec')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_no_other_module_of_ours() -> None:
    code = "import sys; before = set(sys.modules); import intergiro_provider; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['intergiro_provider']"


def test_each_call_returns_a_fresh_dictionary() -> None:
    """Airflow's manager changes the dictionary."""
    first = get_provider_info()
    before = copy.deepcopy(first)
    first["connection-types"][0]["conn-fields"].clear()
    assert get_provider_info() == before


@pytest.mark.filterwarnings("ignore:.*deprecated")  # Airflow's own, about itself
def test_airflow_lists_the_provider_and_its_connection_type() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert manager.providers[DISTRIBUTION].version == intergiro_provider.__version__
    hook = manager.hooks["intergiro"]
    assert hook is not None
    assert hook.hook_class_name == "intergiro_provider.hooks.intergiro.IntergiroHook"
    assert hook.package_name == DISTRIBUTION
    if reads_conn_fields() or find_spec("flask_appbuilder"):  # else the API server alone knows it, by the hook
        assert manager.field_behaviours["intergiro"]["relabeling"] == {"password": "API key"}
