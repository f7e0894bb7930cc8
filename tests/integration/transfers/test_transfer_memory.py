# SPDX-License-Identifier: Apache-2.0
"""The memory of a pull does not grow with the list: ten times the rows, nearly the same peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Pulls in a process for each, forked after the imports. Prints the number of rows, and the peak memory in MiB.
SCRIPT = """
import json, os, re, sys
from pathlib import Path
import intergiro_provider.hooks.intergiro
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

for arguments in json.loads(sys.argv[1]):
    if os.fork() == 0:
        operator = IntergiroToObjectStorageOperator(task_id="pull", endpoint="transactions", **arguments)
        manifest = operator.execute({})
        peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        print("RESULT", json.dumps([manifest["rows"], peak / 1024]), flush=True)
        os._exit(0)
    os.wait()
"""
# In Parquet, the large list fills a row group, and the small one does not.
FORMATS = [("jsonl", None, 8), ("jsonl", "gzip", 8), ("parquet", "zstd", 64)]

Peak = tuple[int, float]


@pytest.fixture(scope="module")
def peaks(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Peak, Peak]]:
    """Return the number of rows and the peak memory in MiB, of a small and a large pull in each format."""
    path = f"file://{tmp_path_factory.mktemp('lake')}"
    with Sandbox(process=True, transactions=110_000, days=110) as bank:
        records = bank.records("/v3/transactions")
        pulls = [
            {
                "path": path, "file_format": file_format, "compression": compression, "max_parallel_windows": 4,
                "created_from": json.loads(records[-rows])["created_at"], "created_to": "9999-01-01",
            }
            for file_format, compression, _ in FORMATS
            for rows in (10_000, 100_000)
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(pulls)],
            env={**os.environ, "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection()},
            capture_output=True,
            text=True,
            check=False,
        )
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(results) == len(pulls), (done.stdout + done.stderr)[-3000:]
    return list(zip(results[::2], results[1::2], strict=True))


@pytest.mark.parametrize("number", range(len(FORMATS)), ids=["jsonl", "gzip", "parquet"])
def test_peak_memory_does_not_grow_with_the_list(peaks: list[tuple[Peak, Peak]], number: int) -> None:
    (small_rows, small), (large_rows, large) = peaks[number]
    assert 9_990 <= small_rows <= 10_010
    assert 99_990 <= large_rows <= 100_010
    print(f"peak {small:.1f} MiB for {small_rows:,} rows, {large:.1f} MiB for {large_rows:,}")
    assert large - small < FORMATS[number][2]
