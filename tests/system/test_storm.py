# SPDX-License-Identifier: Apache-2.0
"""The storms of `make storms` in small: all that they promise must hold here, too."""

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


def test_workers_and_triggerer_share_one_session(tmp_path: Path) -> None:
    from scripts.storm_stack import Stack

    with Stack(tmp_path / "airflow") as stack:
        figures = stack.run(Plan("small", workers=16, deferred=8))
    print(describe(figures))
    assert figures.missed == (), describe(figures)
    assert (figures.logins, figures.failed) == (1, 0)


def test_celery_workers_that_share_no_lock_file_share_one_session(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    from scripts.storm_celery import CeleryStack

    try:
        stack = CeleryStack(tmp_path / "airflow")
    except Missing as reason:
        missing(str(reason))
    with stack:
        figures = stack.run(Plan("small", workers=12, hosts=2))
    print(describe(figures))
    assert figures.missed == (), describe(figures)
    assert (figures.logins, figures.failed) == (1, 0)
