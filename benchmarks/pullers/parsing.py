# SPDX-License-Identifier: Apache-2.0
"""Not a puller: what a DAG file with two tasks of ours costs the DAG processor, and the same file with two others.

As in the DAG processor each parse is a fork of a process that has imported what the DAG processor has, and nothing of
ours.
"""

from __future__ import annotations

import compileall
import gc
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARSES = 15

PLAIN = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1)):
    BashOperator(task_id="before", bash_command="true") >> BashOperator(task_id="after", bash_command="true")
    BashOperator(task_id="call", bash_command="true") >> BashOperator(task_id="pull", bash_command="true")
"""
OURS = PLAIN.replace(
    "\nwith DAG",
    """from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

with DAG""",
).replace(
    PLAIN.splitlines()[-1],
    """    IntergiroOperator(task_id="call", endpoint="accounts") >> IntergiroToObjectStorageOperator(
        task_id="pull", endpoint="transactions", path="file:///data", created_from="{{ ds }}", created_to="{{ ds }}"
    )""",
)


def main() -> None:
    """Print one line of JSON: milliseconds `with` and `without`, medians of forks that take turns."""
    import airflow.dag_processing.manager
    import airflow.models
    import airflow.providers.common.compat.sdk
    import airflow.providers.standard.operators.bash
    import airflow.sdk

    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

    airflow.models.import_all_models()  # as its first look at the database does

    package = importlib.util.find_spec("intergiro_provider")
    if package is not None and package.origin is not None:  # as an installed package is
        compileall.compile_dir(Path(package.origin).parent, quiet=2)
    took: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        files = {"without": Path(folder, "plain.py"), "with": Path(folder, "ours.py")}
        files["without"].write_text(PLAIN)
        files["with"].write_text(OURS)
        gc.freeze()  # as the DAG processor does
        for _ in range(PARSES):
            for name, path in files.items():
                took[name].append(_in_fork(lambda path=path: DagBag(path)))
    print(json.dumps({name: statistics.median(times) * 1000 for name, times in took.items()}))


def _in_fork(parse: Callable[[], Any]) -> float:
    """Seconds of CPU that it takes in a child of this process."""
    there, here = os.pipe()
    child = os.fork()
    if not child:
        try:
            began = time.process_time()
            bag = parse()
            seconds = time.process_time() - began if bag.dags and not bag.import_errors else float("nan")
            os.write(here, repr(seconds).encode())
        finally:
            os._exit(0)
    os.close(here)
    text = os.read(there, 100)
    os.close(there)
    os.waitpid(child, 0)
    if not text or text == b"nan":
        raise SystemExit("a DAG file could not be parsed")
    return float(text)


if __name__ == "__main__":
    main()
