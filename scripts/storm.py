# SPDX-License-Identifier: Apache-2.0
"""Storms: hundreds of tasks that share one session in a real Airflow, while its access token lives a few seconds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from scripts.airflow_stack import ROOT
from scripts.demo import Progress
from scripts.storm_figures import Plan
from scripts.storm_stack import Stack

HOME = ROOT / ".storms"

if __name__ == "__main__":
    tell = Progress()
    shutil.rmtree(HOME, ignore_errors=True)
    with Stack(Path(HOME) / "local", progress=tell) as stack:
        figures = stack.run(Plan("cold", int(sys.argv[1])))
        for name, value in vars(figures).items():
            print(f"{name:14} {value}")
