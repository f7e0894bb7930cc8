# SPDX-License-Identifier: Apache-2.0
"""The distribution: complete, free of Airflow, and without a file in common with airflow-provider-intergiro."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dagster_intergiro
import intergiro_provider
from tests.dagster.conftest import ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print("airflow" in sys.modules, len([name for name in sys.modules if name.startswith(sys.argv[1])]))
"""


def imports(*names: str, path: Path = ROOT) -> str:
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build a wheel from the checkout, and one from its sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d"]
    subprocess.run([*build, str(folder)], cwd=ROOT / "packaging" / "dagster", check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "xzf", str(sdist), "-C", str(folder)], check=True)
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, str(folder / "again"), "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return {"checkout": next(folder.glob("*.whl")), "sdist": next((folder / "again").glob("*.whl"))}


def test_every_shared_module_and_every_module_of_ours_imports_without_airflow() -> None:
    names = [f"intergiro_provider.{name}" for name in ("api", "load", "pull", "session", "sandbox")]
    found = imports("dagster_intergiro", *(name for name in names if Path(ROOT, *name.split(".")).is_dir()))
    assert found.startswith("False ")
    assert not list(metadata.distributions(name="apache-airflow"))


def test_the_wheel_holds_everything_below_its_own_name(wheels: dict[str, Path], tmp_path: Path) -> None:
    contents = {}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            contents[name] = {entry: archive.read(entry) for entry in archive.namelist() if "RECORD" not in entry}
    assert contents["checkout"] == contents["sdist"]
    tops = {entry.split("/")[0] for entry in contents["checkout"]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dagster_intergiro"}
    code = {name: text for name, text in contents["checkout"].items() if name.endswith(".py")}
    assert not [name for name, text in code.items() if re.search(rb"\bintergiro_provider\b", text)]
    assert "dagster_intergiro/_core/session/renewal.py" in code
    assert "dagster_intergiro/py.typed" in contents["checkout"]

    with zipfile.ZipFile(wheels["checkout"]) as archive:
        archive.extractall(tmp_path)
    code_below = (
        "import sys\n"
        "sys.path = [p for p in sys.path if not p.endswith(('packaging/dagster', 'trees')) and p != sys.argv[1]]\n"
        "sys.path.insert(0, sys.argv[2])\nimport dagster_intergiro\n"
        "from dagster_intergiro import IntergiroResource\n"
        "IntergiroResource(api_key='x', host='http://127.0.0.1:1').get_client()\n"
        f"sys.argv[1:] = ['dagster_intergiro']\n{IMPORT_ALL}\n"
        "print(dagster_intergiro.__file__, 'airflow' in sys.modules, 'intergiro_provider' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code_below, str(ROOT), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    last = done.stdout.splitlines()[-1:]
    assert last == [f"{tmp_path}/dagster_intergiro/__init__.py False False"], done.stderr[-2000:]


def test_one_module_alone_imports_what_dagster_does_not_publish() -> None:
    public = {"dagster", "dagster_shared.libraries"}
    for path in (ROOT / "packaging" / "dagster" / "dagster_intergiro").glob("*.py"):
        names = re.findall(r"^ *(?:from|import) (dagster(?:_shared)?(?:\.[\w.]+)?)\b", path.read_text(), re.MULTILINE)
        assert path.name == "internals.py" or set(names) <= public, path.name


def test_both_distributions_have_one_version() -> None:
    assert dagster_intergiro.__version__ == intergiro_provider.__version__


def test_it_brings_at_most_60_packages() -> None:
    seen: set[str] = set()
    waiting = ["dagster-intergiro"]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = metadata.distribution(name).requires or ()
        except metadata.PackageNotFoundError:  # for another platform or Python
            seen.discard(name)
            continue
        waiting += [re.split(r"[^\w.-]", r)[0] for r in requirements if "extra ==" not in r]
    assert len(seen) <= 60
    assert not [name for name in seen if "airflow" in name]


AIRFLOWS = "from intergiro_provider.hooks.intergiro import IntergiroHook; print('airflow works')"
DAGSTERS = "import sys, dagster_intergiro; print('dagster works', 'airflow' in sys.modules)"


@pytest.mark.exhaustive  # installs Airflow, twice
@pytest.mark.parametrize("dagster_first", [True, False])
@pytest.mark.parametrize("removed", ["dagster-intergiro", "airflow-provider-intergiro"])
def test_both_distributions_work_side_by_side_and_alone(
    wheels: dict[str, Path], tmp_path: Path, dagster_first: bool, removed: str
) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    both = [str(wheels["checkout"]), str(next(tmp_path.glob("*.whl")))]
    python = tmp_path / "venv" / "bin" / "python"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    for wheel in both if dagster_first else reversed(both):
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), wheel], check=True)
    home = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow")}

    def says(code: str) -> str:
        command = [str(python), "-W", "ignore", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True)
        return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr[-500:]

    assert says(AIRFLOWS) == "airflow works"
    assert says(DAGSTERS) == "dagster works False"
    subprocess.run([uv, "pip", "uninstall", "-q", "--python", str(python), removed], check=True)
    if removed == "dagster-intergiro":
        assert says(AIRFLOWS) == "airflow works"
        assert "No module named 'dagster_intergiro'" in says(DAGSTERS)
    else:
        assert says(DAGSTERS) == "dagster works False"
        assert "No module named 'intergiro_provider'" in says(AIRFLOWS)
