# SPDX-License-Identifier: Apache-2.0
"""A small version of `make storms`, with the same goals."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.services import Missing
from scripts.storm_figures import Plan
from scripts.storm_report import describe
from tests.integration.session.services import missing
from tests.system.conftest import AIRFLOW

if AIRFLOW < (3, 0):
    pytest.skip("needs the components of Airflow 3", allow_module_level=True)


def test_triggerer_and_workers_that_share_no_lock_file_share_one_session(tmp_path: Path) -> None:
    """The tasks run on Celery. For LocalExecutor, see test_airflow3.py."""
    pytest.importorskip("celery")
    from scripts.storm_celery import CeleryStack

    try:
        stack = CeleryStack(tmp_path / "airflow")
    except Missing as reason:
        missing(str(reason))
    with stack:
        figures = stack.run(Plan("small", workers=8, deferred=4, hosts=2, seconds=8.0))
    print(describe(figures))
    assert figures.missed == (), describe(figures)
    assert (figures.logins, figures.failed) == (1, 0)
