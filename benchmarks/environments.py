# SPDX-License-Identifier: Apache-2.0
"""The environments that pullers run in: ours, and one below ``build/`` for each peer that is not Airflow's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"
HERE = Path(__file__).resolve().parent
OURS = "ours"


def python_of(environment: str) -> str:
    """The interpreter of an environment, which is made where it does not exist or its pins have changed.

    All run on the Python that runs this, so that none has a faster one.
    """
    if environment == OURS:
        return sys.executable
    home = BUILD / environment
    python, stamp, pins = home / "bin" / "python", home / ".pins", HERE / f"requirements-{environment}.txt"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"making {home.relative_to(ROOT)} …", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
        subprocess.run([uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", python, pins], check=True)
        stamp.write_text(wanted)
    return str(python)


def resolve_pins() -> None:
    """Write the pins of every environment, without index addresses."""
    uv = str(Path(sys.executable).with_name("uv"))
    for source in sorted(HERE.glob("requirements-*.in")):
        command = [
            *(uv, "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11"),
            *("--no-annotate", "--custom-compile-command", "python -m benchmarks --pins"),
            *(str(source.relative_to(ROOT)), "--output-file", str(source.with_suffix(".txt").relative_to(ROOT))),
        ]
        subprocess.run(command, check=True, cwd=ROOT)


def variables() -> dict[str, str]:
    """The environment variables of a puller: an Airflow home of the benchmarks' own, with a database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "VIRTUAL_ENV"))}
    home = BUILD / "airflow-home"
    made = {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "PYTHONPATH": str(ROOT),
    }
    if not (home / ".migrated").exists():
        home.mkdir(parents=True, exist_ok=True)
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=made, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (home / ".migrated").touch()
    return made
