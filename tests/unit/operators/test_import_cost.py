# SPDX-License-Identifier: Apache-2.0
"""Importing the operators, as every parse of a DAG file does, imports no module that only a run needs."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

OURS = {
    "exceptions", "links", "links.intergiro", "operators", "operators.intergiro", "operators.rendering", "pull",
    "pull.arguments", "query", "retry_policy", "sensors", "sensors.intergiro", "tracebacks", "transfers",
    "transfers.intergiro_to_object_storage",
}  # fmt: skip
"""The modules of this package that a DAG file needs if its bounds are templates."""

HEAVY = (
    "requests", "requests_toolbelt", "aiohttp", "msgspec", "fsspec", "upath", "pyarrow", "zstandard",
    "airflow.providers.http", "intergiro_provider.hooks", "intergiro_provider.session", "intergiro_provider.api",
)  # fmt: skip

BEFORE = """
import sys
from airflow.providers.common.compat.sdk import (
    AirflowException, AirflowFailException, Asset, BaseOperator, BaseOperatorLink, BaseSensorOperator
)

class Plain(BaseOperator):
    pass

Plain(task_id="plain")  # what any operator imports
generated = []
sys.addaudithook(lambda event, args: generated.append(args[1]) if event == "compile" else None)
before = set(sys.modules)
"""
ORDINARY = """
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
IntergiroOperator(task_id="a", endpoint="accounts", method="POST", json={"a": 1})
IntergiroToObjectStorageOperator(
    task_id="b", endpoint="transactions", path="file:///x", query={"limit": 5},
    created_from="{{ data_interval_start }}", created_to="{{ data_interval_end }}", compression="gzip",
    file_format="parquet",
)
IntergiroSensor(task_id="c", endpoint="accounts", response_check="a.b", deferrable=True)
"""
UNUSUAL = """
IntergiroToObjectStorageOperator(
    task_id="d", endpoint="transactions", path="file:///x", created_from="2026-01-01", created_to="2026-01-02",
)
from intergiro_provider.triggers.intergiro import IntergiroEventTrigger  # for an asset with a watcher
"""
AFTER = """
print("IMPORTED", *sorted(set(sys.modules) - before))
print("GENERATED", *sorted(str(name).replace(" ", "_") for name in generated))
"""


@cache
def parsed(file: str) -> tuple[list[str], list[str]]:
    """Return the modules that a DAG file imports beyond those of any operator, and the files of generated code."""
    done = subprocess.run([sys.executable, "-c", BEFORE + file + AFTER], capture_output=True, text=True, check=True)
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    return lines["IMPORTED"], lines["GENERATED"]


def test_a_parse_imports_what_it_needs_and_no_more() -> None:
    """Each module costs time in every parse of a DAG file: a module of Airflow takes 0.1 ms to 2 ms."""
    imported, _ = parsed(ORDINARY)
    # With an editable installation, the package itself is imported already.
    assert set(imported) - {"intergiro_provider"} == {f"intergiro_provider.{name}" for name in OURS}


def test_no_code_is_generated() -> None:
    """A dataclass, an attrs class or a NamedTuple generates code, which takes 0.3 ms to 1 ms each."""
    _, compiled = parsed(ORDINARY)
    assert [name for name in compiled if not name.endswith(".py")] == []


def test_nothing_heavy_is_imported() -> None:
    imported, _ = parsed(ORDINARY + UNUSUAL)
    assert "intergiro_provider.pull.bounds" in imported
    assert "intergiro_provider.triggers.intergiro" in imported
    assert [m for m in imported if any(m == heavy or m.startswith(heavy + ".") for heavy in HEAVY)] == []
    assert len(imported) < 40, imported
