# SPDX-License-Identifier: Apache-2.0
"""Build the package, check its content, install it into clean environments, and try it there.

    python -m scripts.package_matrix build/packages            # everything; some minutes
    python -m scripts.package_matrix build/packages 3.3-3.13   # one environment
    python -m scripts.package_matrix build/packages --write docs/packages.md

Each environment gets the wheel with its extras and whatever else a resolver finds for that Airflow today; nothing of
the source tree can be seen there. The Pythons have to be on PATH, or pyenv's.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import intergiro_provider
from scripts.package_examples import run_examples
from scripts.set_up import python_version

ROOT = Path(__file__).resolve().parent.parent
UV = str(Path(sys.executable).with_name("uv"))
SMOKE = ROOT / "scripts" / "package_smoke.py"

MATRIX = (
    ("2.11", "3.11"), ("2.11", "3.12"), ("3.0", "3.11"), ("3.1", "3.12"), ("3.2", "3.12"),
    ("3.3", "3.11"), ("3.3", "3.12"), ("3.3", "3.13"),
)  # fmt: skip

#: Upper bounds for releases that an Airflow does not work with, although its own requirements allow them.
CONSTRAINTS: dict[str, tuple[str, ...]] = {
    # Its ObjectStoragePath takes no path of universal-pathlib 0.3; its API server starts no task with newer ones of the
    # next two, and gives nobody a token with a PyJWT that wants an issuer. Without FAB's provider, its form shows no
    # fields of any other's.
    "3.0": ("universal-pathlib<0.3", "fastapi<0.118", "cadwyn<6", "pyjwt<2.11", "apache-airflow-providers-fab"),
    # Its API server does not start with newer ones.
    "3.2": ("fastapi<0.137",),
}

#: In an environment's folder: what was found when it last went well.
FOUND = "found.json"

EXTRAS = ("duckdb", "parquet", "postgres", "redis", "sandbox", "zstd")

#: Without an extra, every module imports that Airflow is told of.
IMPORT_ALL = """
import importlib
from intergiro_provider.get_provider_info import get_provider_info
info = get_provider_info()
for kind in ("operators", "sensors", "triggers", "hooks"):
    for each in info[kind]:
        for module in each["python-modules"]:
            importlib.import_module(module)
importlib.import_module(info["transfers"][0]["python-module"])
"""

EXPECTED = {
    "listed": intergiro_provider.__version__,
    "provider": intergiro_provider.__version__,
    "connection_type": True,
    "test_connection": True,
    "logins": 2,  # the test of the connection keeps nothing, so the pull logs in by itself
}


class EnvironmentFailed(Exception):
    """A command failed, or what it found is not as it should be."""


@dataclass(frozen=True)
class Built:
    """The two files of a release."""

    sdist: Path
    wheel: Path

    @property
    def fingerprint(self) -> str:
        """Of what is in the wheel: builds of one source are equal."""
        return hashlib.sha256(self.wheel.read_bytes()).hexdigest()


def run(*command: str, env: dict[str, str] | None = None, cwd: Path = ROOT, timeout: float = 900.0) -> str:
    """Run a command and return what it printed; its whole output is in the error if it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise EnvironmentFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-6000:]}")
    return done.stdout


def build(folder: Path) -> Built:
    """Build sdist and wheel, the latter from the former."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.whl"), *folder.glob("*.tar.gz")):
        old.unlink()
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder))
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    [source] = (folder / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=source)
    [wheel] = folder.glob("*.whl")
    return Built(sdist, wheel)


def problems(built: Built) -> list[str]:
    """What is wrong with the files themselves."""
    found: list[str] = []
    version = intergiro_provider.__version__
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
        metadata = email.message_from_bytes(wheel.read(f"airflow_provider_intergiro-{version}.dist-info/METADATA"))
        points = wheel.read(f"airflow_provider_intergiro-{version}.dist-info/entry_points.txt").decode()
    with tarfile.open(built.sdist) as sdist:
        sources = [name.partition("/")[2] for name in sdist.getnames()]
    tops = {name.partition("/")[0] for name in names}
    if tops != {"intergiro_provider", f"airflow_provider_intergiro-{version}.dist-info"}:
        found.append(f"the wheel holds {sorted(tops)}")
    if "intergiro_provider/py.typed" not in names:
        found.append("the wheel has no py.typed")
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "intergiro_provider").rglob("*.py")}
    if missing := ours - set(names):
        found.append(f"the wheel lacks {sorted(missing)}")
    if extra := {name.partition("/")[0] for name in sources} - {
        "intergiro_provider", "README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore", "",
    }:  # fmt: skip
        found.append(f"the sdist holds {sorted(extra)}")
    if any(re.search(r"(^|/)(tests?|__pycache__)(/|$)", name) for name in names + sources):
        found.append("tests or caches are inside")
    for key, wanted in (
        ("Name", "airflow-provider-intergiro"), ("Version", version), ("License-Expression", "Apache-2.0"),
        ("Requires-Python", ">=3.11"), ("Description-Content-Type", "text/markdown"),
    ):  # fmt: skip
        if metadata[key] != wanted:
            found.append(f"{key} is {metadata[key]!r}")
    if "Framework :: Apache Airflow :: Provider" not in metadata.get_all("Classifier", []):
        found.append("the classifier of a provider is missing")
    if "[apache_airflow_provider]" not in points:
        found.append("the entry point is missing")
    return found


def find_python(wanted: str) -> str:
    """A working interpreter of this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for candidate in (f"python{wanted}", *map(str, sorted(pyenv.glob(f"versions/{wanted}.*/bin/python")))):
        if python_version(candidate) == wanted:
            return candidate
    raise SystemExit(f"there is no Python {wanted} here")


def try_out(built: Built, folder: Path, airflow: str, python: str) -> dict[str, Any]:
    """Install into a clean environment and try what a user would."""
    began = time.monotonic()
    home = folder / f"{airflow}-{python}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    run(UV, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", find_python(python), str(home / "venv"))
    interpreter = str(home / "venv" / "bin" / "python")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    env |= {"AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env["PATH"] = f"{home}/venv/bin:{env['PATH']}"

    def install(wheel: str) -> None:
        requirements = [f"apache-airflow=={airflow}.*", wheel, *CONSTRAINTS.get(airflow, ())]
        run(UV, "pip", "install", "--quiet", "--python", interpreter, *requirements, cwd=home)
        run(UV, "pip", "check", "--python", interpreter, cwd=home)

    install(f"airflow-provider-intergiro @ {built.wheel.as_uri()}")
    run(interpreter, "-m", "airflow", "db", "migrate", env=env, cwd=home)
    said = run(interpreter, "-m", "airflow", "providers", "get", "airflow-provider-intergiro", env=env, cwd=home)
    if intergiro_provider.__version__ not in said:
        raise EnvironmentFailed(f"airflow providers get says: {said}")
    run(interpreter, "-c", IMPORT_ALL, env=env, cwd=home)
    install(f"airflow-provider-intergiro[{','.join(EXTRAS)}] @ {built.wheel.as_uri()}")
    printed = run(interpreter, str(SMOKE), env=env, cwd=home).splitlines()
    [line] = [line for line in printed if line.startswith("SMOKE ")]
    found: dict[str, Any] = json.loads(line.removeprefix("SMOKE "))
    wrong = {name: found[name] for name, wanted in EXPECTED.items() if found[name] != wanted}
    if wrong or not found["jsonl_rows"] == found["parquet_rows"] == found["expected_rows"] > 0:
        raise EnvironmentFailed(str(found))
    major, minor = map(int, airflow.split("."))
    found |= run_examples(interpreter, home, (major, minor))
    # A test of the connection keeps nothing, so the first task logs in again; on Airflow 2.11 there was none.
    if found["examples_logins"] != (1 if major < 3 else 2):
        raise EnvironmentFailed(str(found))
    found["seconds"] = round(time.monotonic() - began)
    (home / FOUND).write_text(json.dumps(found | {"wheel": built.fingerprint}))
    return found


INTRO = """\
# Packages as tested

This page lists the versions of Airflow and Python with which the built package was tested. Each row is a clean
environment with the wheel and the newest packages that this Airflow version allows. The bank was the sandbox.
`make packages` repeats the tests and writes this page.

Each environment passed these tests:

1. Without extras: `airflow providers get` shows the provider, and every module in the provider info can be imported.
2. With all extras: Airflow's schema accepts the provider info. A call of one endpoint succeeds, and so do pulls as JSON
   lines and as Parquet.
3. The [examples](examples.md) run and share one session. On Airflow 3, they run with a scheduler, workers and a
   triggerer. One example is deferred, and an asset watcher starts another one. The connection is tested and stored
   through the API. On Airflow 2.11, the examples run with `airflow dags test`.

*Rows pulled* are the rows as JSON lines and as Parquet. Older Airflow versions run fewer examples, because some
examples need a newer Airflow.

| Airflow | Python | fields in the form | rows pulled | examples run |
| --- | --- | --- | --- | --- |
"""
CONSTRAINED = """
Some Airflow versions do not work with the newest packages that they allow. Airflow recommends its constraints files for
this reason. The tests used no constraints file, but these additional requirements:

"""


def page(found: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    rows = "".join(
        f"| {each['airflow']} | {each['python']} | {each['form_fields']} "
        f"| {each['jsonl_rows']} and {each['parquet_rows']} of {each['expected_rows']} | {each['examples']} |\n"
        for each in found
    )
    asked = "".join(
        f"- Airflow {airflow}: {', '.join(f'`{each}`' for each in constraints)}\n"
        for airflow, constraints in CONSTRAINTS.items()
    )
    return INTRO + rows + CONSTRAINED + asked


def gathered(folder: Path, built: Built) -> list[dict[str, Any]]:
    """What was found with this very wheel, also by calls before this one."""
    files = [folder / f"{airflow}-{python}" / FOUND for airflow, python in MATRIX]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    return [each for each in found if each["wheel"] == built.fingerprint]


def main() -> None:
    """Build, check, and try in each environment."""
    parser = argparse.ArgumentParser(description="Build the package and try it in clean environments.")
    parser.add_argument("folder", type=Path, help="where everything is made")
    parser.add_argument("environment", nargs="*", help="such as 3.3-3.13; all if none is given")
    parser.add_argument("--write", type=Path, help="the page to write")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    built = build(folder)
    if wrong := problems(built):
        raise SystemExit("\n".join(wrong))
    print(f"{built.sdist.name} and {built.wheel.name} are as they should be", flush=True)
    failed = []
    for airflow, python in MATRIX:
        if arguments.environment and f"{airflow}-{python}" not in arguments.environment:
            continue
        try:
            found = try_out(built, folder, airflow, python)
        except Exception as error:
            failed.append(f"{airflow}-{python}")
            print(f"Airflow {airflow} on Python {python}: {type(error).__name__}: {error}", flush=True)
        else:
            print(json.dumps(found), flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    if arguments.write:
        arguments.write.write_text(page(gathered(folder, built)))


if __name__ == "__main__":
    main()
