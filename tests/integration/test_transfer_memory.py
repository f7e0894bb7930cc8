# SPDX-License-Identifier: Apache-2.0
"""A pull's memory does not grow with the list: ten times the rows, and the peak is nearly the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.sandbox import Sandbox

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = """
import json, re, sys, time
from pathlib import Path
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

path, arguments = sys.argv[1], json.loads(sys.argv[2])
operator = IntergiroToObjectStorageOperator(task_id="pull", endpoint="transactions", path=path, **arguments)
manifest = operator.execute({})
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])  # of this program alone
print("RESULT", json.dumps([manifest["rows"], peak / 1024]))
"""


def pull(bank: Sandbox, path: Path, **arguments: Any) -> tuple[int, float]:
    """Pull in a process of its own; return the rows and its peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"file://{path}", json.dumps(arguments)],
        env={**os.environ, "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection()},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, (done.stdout + done.stderr)[-3000:]
    rows, peak = json.loads(results[0].removeprefix("RESULT "))
    return rows, peak


# Of Parquet, the large list fills a row group and the small one does not.
@pytest.mark.parametrize(
    ("file_format", "compression", "most"), [("jsonl", None, 8), ("jsonl", "gzip", 8), ("parquet", "zstd", 64)]
)
def test_peak_memory_does_not_grow_with_the_list(
    airflow_db: Path, tmp_path: Path, file_format: str, compression: str | None, most: int
) -> None:
    with Sandbox(process=True, transactions=110_000, days=110) as bank:
        records = bank.records("/v3/transactions")
        few, many = (json.loads(records[-n])["created_at"] for n in (10_000, 100_000))
        end = "9999-01-01"
        del records
        how = {"created_to": end, "file_format": file_format, "compression": compression, "max_parallel_windows": 4}
        small_rows, small = pull(bank, tmp_path, created_from=few, **how)
        large_rows, large = pull(bank, tmp_path, created_from=many, **how)
    assert 9_990 <= small_rows <= 10_010
    assert 99_990 <= large_rows <= 100_010
    print(f"peak {small:.1f} MiB for {small_rows:,} rows, {large:.1f} MiB for {large_rows:,}")
    assert large - small < most, f"{small:.1f} MiB for {small_rows} rows, but {large:.1f} MiB for {large_rows}"
