# SPDX-License-Identifier: Apache-2.0
"""Build the distribution: this package, and a copy of the shared packages below its own name.

``dagster-intergiro`` and ``airflow-provider-intergiro`` have no file in common, so each can be installed before or
after the other, and uninstalled, without harm to the other. In a checkout nothing is copied: ``dagster_intergiro``
imports ``intergiro_provider`` from the root of the repository. In a built file it imports ``dagster_intergiro._core``.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "dagster_intergiro"
CORE = f"{PACKAGE}._core"
AIRFLOWS = (
    *("hooks", "operators", "transfers", "sensors", "triggers", "links", "cli", "payments", "plugins"),
    *("__main__.py", "get_provider_info.py", "retry_policy.py"),
)
"""Packages of ``intergiro_provider`` that are not copied: those that use Airflow, and those that only they use."""


class Copies(BuildHookInterface[Any]):
    """Collects the files of a wheel or an sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to the build."""
        if version == "editable":
            return
        own = Path(self.root, PACKAGE)
        if not Path(own, "_core").exists():  # else this is an unpacked sdist, whose files are as they have to be
            self._folder = Path(tempfile.mkdtemp(prefix="dagster-intergiro-"))
            own = rewritten(own, Path(self.root).parents[1] / "intergiro_provider", self._folder)
        build_data["force_include"][str(own)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder)


def rewritten(own: Path, shared: Path, folder: Path) -> Path:
    """Copy both packages into a folder, and let them import each other by their new names; return the package."""
    target = folder / PACKAGE
    shutil.copytree(own, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(shared, target / "_core", ignore=shutil.ignore_patterns("__pycache__", *AIRFLOWS))
    for path in target.rglob("*.py"):
        path.write_text(re.sub(r"\bintergiro_provider\b", CORE, path.read_text("utf-8")), "utf-8")
    return target
