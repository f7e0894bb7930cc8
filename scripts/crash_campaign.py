# SPDX-License-Identifier: Apache-2.0
"""`make crashes`: kill renewing processes at every point of a renewal, and record how the other processes continue.

Run as ``python -m scripts.crash_campaign run RESULTS``, once for each Airflow, then ``… report RESULTS… > PAGE``.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

AT_A_TIME = 16


def run(results: Path, plain_only: bool, seconds: float) -> int:
    """The whole campaign in the Airflow of this environment; 1 if a promise was not kept."""
    # It gives this process an Airflow home of its own, so nothing may have imported Airflow before.
    from tests.conftest import _HOME as home

    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    from tests.integration.session import crash_campaign as campaigns
    from tests.integration.session import services

    campaigns.let_readers_read(home / "airflow.db")
    with (
        services.redis() as redis,
        services.postgres() as postgres,
        tempfile.TemporaryDirectory(prefix="crashes-") as directory,
    ):
        locks = {"redis": redis.connection_json(), "postgres": postgres.connection_json()}
        real: list[Any] = []
        with (
            campaigns.campaign(AT_A_TIME, Path(directory), locks) as shrunk,
            campaigns.campaign(len(campaigns.REAL_CASES), Path(directory), locks) as slow,
        ):
            # They wait for minutes and compute next to nothing.
            beside = threading.Thread(target=lambda: real.extend(slow.all(campaigns.REAL_CASES)))
            if not plain_only:
                beside.start()
            plain = ("", "refused")
            starts = [case for case in campaigns.SHRUNK_CASES if not plain_only or (case.lock, case.world) == plain]
            cases = list(shrunk.every_point_of(starts))
            # Mixed, so that a run that is cut short has seen something of everything.
            random.Random(1).shuffle(cases)  # noqa: S311
            records = shrunk.all(cases, campaigns.Progress(len(cases)), seconds)
            if not plain_only:
                beside.join()
        records += real
    results.parent.mkdir(parents=True, exist_ok=True)
    airflow = version("apache-airflow")
    left_out = len(cases) - len(records) + len(real)
    found = {"airflow": airflow, "left_out": left_out, "records": [asdict(record) for record in records]}
    results.write_text(json.dumps(found))
    violated = [f"{record.where}: {violation}" for record in records for violation in record.violations]
    if left_out:
        print(f"out of time: {left_out} points were left out")
    print(f"Airflow {airflow}: {sum(r.struck for r in records)} kills, {len(violated)} violations", *violated, sep="\n")
    return 1 if violated else 0


def report(results: list[Path]) -> int:
    """Print the page that tells of these campaigns."""
    import tests.conftest  # noqa: F401
    from tests.integration.session.crash_campaign import Record
    from tests.integration.session.crash_report import page
    from tests.integration.session.crashes import SHRUNK

    found = [json.loads(path.read_text()) for path in results]
    sections = {each["airflow"]: [Record(**record) for record in each["records"]] for each in found}
    print(page(sections, {each["airflow"]: each["left_out"] for each in found}, SHRUNK.takeover), end="")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--plain-only", action="store_true", help="without distributed locks and other banks")
    parser.add_argument("--seconds", type=float, default=1500.0, help="begin no more fleets after so many")
    arguments = parser.parse_args()
    if arguments.what == "run":
        return run(arguments.results[0], arguments.plain_only, arguments.seconds)
    return report(arguments.results)


if __name__ == "__main__":
    sys.exit(main())
