# SPDX-License-Identifier: Apache-2.0
"""The packages below the hooks work without Airflow."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

HIDE = """
import importlib.metadata as metadata, importlib.abc, sys

class NoAirflow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"{name} is hidden", name=name)

sys.meta_path.insert(0, NoAirflow())
"""
NO_METADATA = """
found = metadata.distribution
def distribution(name):
    if name.startswith("apache-airflow"):
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.distribution = distribution
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_rooms_below_the_hooks_import_without_airflow() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("session", "api", "pull", "load")
        for path in sorted((ROOT / "intergiro_provider" / room).glob("*.py"))
        if path.name not in ("store.py", "locks.py")
    ]
    assert len(modules) > 30
    done = run(
        HIDE
        + NO_METADATA
        + textwrap.dedent(f"""
            import importlib
            from intergiro_provider import exceptions
            for name in {modules}:
                importlib.import_module(name)
            assert exceptions.is_final(exceptions.IntergiroValueError("no"))
            assert not exceptions.is_final(exceptions.BankUnavailable())
            assert not any(name.partition(".")[0] == "airflow" for name in sys.modules)
        """)
    )
    assert done.returncode == 0, done.stderr


def test_an_airflow_that_is_installed_and_broken_is_an_error() -> None:
    done = run(HIDE + "import intergiro_provider.exceptions")

    assert done.returncode == 1
    assert "airflow is hidden" in done.stderr.splitlines()[-1]
