# SPDX-License-Identifier: Apache-2.0
"""Importing the operators, as every parse of a DAG file does, must not import what only a run needs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "requests", "requests_toolbelt", "aiohttp", "msgspec", "fsspec", "upath", "pyarrow", "zstandard",
    "airflow.providers.http", "intergiro_provider.hooks", "intergiro_provider.session", "intergiro_provider.api",
)  # fmt: skip

SCRIPT = """
import sys
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, BaseOperator

class Plain(BaseOperator):
    pass

Plain(task_id="plain")  # what any operator imports
before = set(sys.modules)
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator
IntergiroOperator(task_id="a", endpoint="accounts", method="POST", json={"a": 1})
IntergiroToObjectStorageOperator(
    task_id="b", endpoint="transactions", path="file:///x", params={"limit": 5},
    created_from="2026-01-01", created_to="2026-01-02", compression="gzip",
)
print("IMPORTED", *sorted(set(sys.modules) - before))
"""


def test_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=True)
    [imported] = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    assert "intergiro_provider.transfers.intergiro_to_object_storage" in imported
    assert [m for m in imported if any(m == heavy or m.startswith(heavy + ".") for heavy in HEAVY)] == []
    assert len(imported) < 40, imported
