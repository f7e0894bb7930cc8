# SPDX-License-Identifier: Apache-2.0
"""Resolve `requirements/*.txt`: exact versions of everything, for every supported Python and platform.

Run by `make pins`. No index address gets into the files: everyone installs from their own index. A pin that still
satisfies the requirements stays as it is; `make pins UPGRADE=1` takes the newest of everything.

`lowest.txt` and `dagster-lowest.txt` are for testing our lower bounds: every requirement in pyproject.toml at exactly
its bound.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
BESIDE_THE_LOWEST = ["universal-pathlib<0.3"]
"""Upper bounds that Airflow 2.11.0 does not declare: its ObjectStoragePath does not work with newer versions."""


def lower_bounds(pyproject: Path) -> list[str]:
    """Return our runtime requirements, the extras' included, each at its lower bound: `requests==2.32.2`."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return [re.sub(r">=\s*([^,;\s]+)[^;]*", r"==\1", requirement) for requirement in project["dependencies"] + extras]


def resolve(name: str, pyproject: Path, sources: list[str], stdin: str, upgrade: bool) -> None:
    """Write the pins for one environment."""
    target = REQUIREMENTS / f"{name}.txt"
    command = [
        str(Path(sys.executable).with_name("uv")),
        *("pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
        *("--no-annotate", "--custom-compile-command", "make pins"),
        *("--group", f"{pyproject}:dev", *(["--upgrade"] if upgrade else [])),
        *(*sources, "--output-file", str(target)),
    ]
    subprocess.run(command, cwd=ROOT, input=stdin, text=True, check=True)
    print(f"{target.relative_to(ROOT)}: {target.read_text().count('==')} pins")


def main() -> None:
    """Resolve the pins of every environment."""
    upgrade = bool(os.environ.get("UPGRADE"))
    airflow, dagster = Path("pyproject.toml"), Path("packaging/dagster/pyproject.toml")
    for source in sorted(REQUIREMENTS.glob("*.in")):
        pyproject = dagster if source.stem == "dagster" else airflow
        resolve(source.stem, pyproject, [str(pyproject), "--all-extras", str(source)], "", upgrade)
    lowest = lower_bounds(ROOT / airflow) + BESIDE_THE_LOWEST
    resolve("lowest", airflow, ["-"], "\n".join(lowest), upgrade)
    resolve("dagster-lowest", dagster, ["-"], "\n".join(lower_bounds(ROOT / dagster)), upgrade)


if __name__ == "__main__":
    main()
