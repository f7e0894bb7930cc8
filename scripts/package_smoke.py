# SPDX-License-Identifier: Apache-2.0
"""What an installed package has to do, run in an environment that has nothing but it: `scripts.package_matrix` does.

Prints one JSON object: the versions, what Airflow knows of the provider, and the rows of a pull from a sandbox.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any


def main() -> None:
    """Log in, call, pull, and look at the form."""
    import jsonschema  # type: ignore[import-untyped]  # it comes with Airflow
    from airflow.providers_manager import ProvidersManager

    import intergiro_provider
    from intergiro_provider.get_provider_info import get_provider_info
    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.operators.intergiro import IntergiroOperator
    from intergiro_provider.sandbox import Sandbox
    from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

    if (Path.cwd() / "intergiro_provider").exists():
        raise SystemExit("run this elsewhere: the source tree would hide the installed package")
    manager: Any = ProvidersManager()  # type: ignore[no-untyped-call]
    hooks: Any = manager.hooks
    found: dict[str, Any] = {
        "airflow": version("apache-airflow"),
        "python": platform.python_version(),
        "provider": intergiro_provider.__version__,
        "listed": manager.providers["airflow-provider-intergiro"].version,
        "connection_type": bool(hooks.get("intergiro")),
        "form_fields": len([name for name in manager.connection_form_widgets if name.startswith("extra__intergiro__")]),
    }
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    with Sandbox(transactions=500, days=5) as bank, tempfile.TemporaryDirectory() as target:
        os.environ["AIRFLOW_CONN_INTERGIRO_DEFAULT"] = bank.connection()
        works, _ = IntergiroHook().test_connection()
        found["test_connection"] = works
        found["accounts"] = len(IntergiroOperator(task_id="call", endpoint="accounts").execute({}))
        for file_format in ("jsonl", "parquet"):
            pull = IntergiroToObjectStorageOperator(
                task_id="pull", endpoint="transactions", path=f"file://{target}/{file_format}",
                created_from="2000-01-01", created_to="2100-01-01", file_format=file_format, compression="zstd",
            )  # fmt: skip
            found[f"{file_format}_rows"] = pull.execute({})["rows"]
        found["expected_rows"] = len(bank.records())
        found["logins"] = bank.counters().logins
    print("SMOKE " + json.dumps(found))


if __name__ == "__main__":
    main()
