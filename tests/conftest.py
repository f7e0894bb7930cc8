# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests: a separate Airflow home, without the developer's Airflow settings.

Airflow reads its settings when it is first imported. So this module sets them while pytest loads it, before any test
module, and fails if Airflow has been imported earlier.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

if "airflow" in sys.modules:
    raise RuntimeError("airflow was imported before tests/conftest.py could give it a private home")

for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "_AIRFLOW"))]:
    del os.environ[_name]

# A forked child must not collect the S3 file systems of its parent. Each would wait a second for an event loop that
# runs only in the parent, and a worker of pytest may have dozens.
os.register_at_fork(after_in_child=gc.freeze)

# One home for each process, so that each worker of pytest-xdist has its own.
_HOME = Path(tempfile.mkdtemp(prefix="intergiro-tests-"))
_OWNER = os.getpid()
(_HOME / "dags").mkdir()
# Temporary files too, such as lock files: two test runs at the same time must not wait for each other. The directories
# of `tmp_path` stay at the usual place, for the analysis of a failure.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
_TMP = Path(tempfile.mkdtemp(prefix="intergiro-tmp-"))
_TMP.chmod(0o755)  # servers of the tests run as another user
os.environ["TMPDIR"] = tempfile.tempdir = str(_TMP)
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(_HOME / "dags")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# Without one here, the first child process would write a configuration with a key that this process does not know.
os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(os.urandom(32)).decode()


@atexit.register
def _remove_home() -> None:
    # A forked child that ends with sys.exit runs this, too, and must not delete the home of its parent.
    if os.getpid() == _OWNER:
        shutil.rmtree(_HOME, ignore_errors=True)
        shutil.rmtree(_TMP, ignore_errors=True)


pytest_plugins = ["tests.sandbox_fixture"]


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Return the private AIRFLOW_HOME of this test process."""
    return _HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the metadata database (SQLite) of the private home, migrated.

    One worker of pytest-xdist migrates. The others copy its file, which saves several seconds each.
    """
    database = airflow_home / "airflow.db"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        _migrate()
        return database
    migrated = tmp_path_factory.getbasetemp().parent / "airflow.db"  # the workers have the same parent
    with migrated.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if migrated.exists():
            shutil.copy(migrated, database)
        else:
            _migrate()
            shutil.copy(database, migrated.with_suffix(".new")).replace(migrated)
    return database


def _migrate() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(autouse=True, scope="module")
def _fresh_database(airflow_home: Path) -> None:
    """Delete the Variables (sessions, login histories) and connections of the module before."""
    # A sandbox may get the port of an earlier one. A stored token for that one would cost a 401 and a login.
    if driver := sys.modules.get("intergiro_provider.session.driver"):
        driver._caches.clear()
    database = airflow_home / "airflow.db"
    if database.exists():
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            connection.execute("delete from variable")
            connection.execute("delete from connection")
