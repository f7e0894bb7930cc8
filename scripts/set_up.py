# SPDX-License-Identifier: Apache-2.0
"""Make the development environments: `.venv` (Airflow 3.3), `.venv-2.11`, `.venv-lowest` (all lower bounds), and
`.venv-dagster` and `.venv-dagster-lowest`, which have no Airflow.

    python3 scripts/set_up.py airflow-3.3 airflow-2.11

Needs nothing but a Python from 3.11 on with venv and pip. Installs exactly what `requirements/<name>.txt`
says, and this package in editable form. Does nothing where the environment is already as the pins say.
Exit code 3: no suitable Python on this machine.
"""

# Runs before any environment exists, perhaps under an older Python: standard library only, and old syntax.
from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NO_PYTHON = 3

#: Name of the pins → (environment, the Python versions that it installs on).
ENVIRONMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "airflow-3.3": (".venv", ("3.11", "3.12", "3.13", "3.14")),
    "airflow-2.11": (".venv-2.11", ("3.11", "3.12")),
    "lowest": (".venv-lowest", ("3.11", "3.12")),
    "dagster": (".venv-dagster", ("3.11", "3.12", "3.13")),
    "dagster-lowest": (".venv-dagster-lowest", ("3.11", "3.12")),
}


def project_of(name: str) -> Path:
    """Return the folder of the distribution that an environment is for."""
    return ROOT / "packaging" / "dagster" if name.startswith("dagster") else ROOT


def python_version(executable: str) -> str | None:
    """Return "3.11" for a working interpreter, None for one that is missing or broken (a pyenv shim, say)."""
    command = [executable, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def find_python(wanted: tuple[str, ...]) -> str | None:
    """Return an interpreter of one of the wanted versions: the one that runs this script, else one on PATH."""
    names = [sys.executable, "python3", *(f"python{version}" for version in wanted)]
    for name in names:
        executable = shutil.which(name)
        if executable and python_version(executable) in wanted:
            return executable
    return None


def fingerprint(pins: Path, project: Path) -> str:
    """Return a hash of everything that the environment is made from."""
    digest = hashlib.sha256()
    for path in (pins, project / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(*command: str | Path) -> None:
    """Run a command in the repository; show what it says only if it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise SystemExit(f"set-up failed: {' '.join(str(part) for part in command)}")


def set_up(name: str) -> int:
    """Create or repair one environment, and return an exit code."""
    folder, versions = ENVIRONMENTS[name]
    home = ROOT / folder
    python = home / "bin" / "python"
    pins = ROOT / "requirements" / f"{name}.txt"
    stamp = home / ".set-up"
    project = project_of(name)
    wanted = fingerprint(pins, project)
    if stamp.is_file() and stamp.read_text() == wanted and python_version(str(python)) in versions:
        return 0

    started = time.monotonic()
    print(f"{name}: making {folder} …", flush=True)
    if python_version(str(python)) not in versions:
        base = find_python(versions)
        if base is None:
            print(
                f"{name} needs Python {' or '.join(versions)}, with venv; none was found",
                file=sys.stderr,
            )
            return NO_PYTHON
        run(base, "-m", "venv", "--clear", home)
    stamp.unlink(missing_ok=True)
    uv_pin = re.search(r"^uv==\S+", pins.read_text(), re.MULTILINE)
    if uv_pin is None:
        raise SystemExit(f"no uv in {pins}")
    uv = home / "bin" / "uv"
    run(python, "-m", "pip", "install", "--quiet", uv_pin.group())
    run(uv, "pip", "sync", "--quiet", "--compile-bytecode", "--python", python, pins)
    run(
        uv,
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--python",
        python,
        "--editable",
        project,
    )
    stamp.write_text(wanted)
    print(f"{name}: {folder} is ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def main() -> int:
    """Make the environments named on the command line."""
    parser = argparse.ArgumentParser(description="Make the development environments.")
    parser.add_argument("name", nargs="+", choices=ENVIRONMENTS, help="whose pins to install")
    return max(set_up(name) for name in parser.parse_args().name)


if __name__ == "__main__":
    raise SystemExit(main())
