# SPDX-License-Identifier: Apache-2.0
"""The example DAGs parse, cheaply, and the nightly one takes the right day. They run in the integration tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "dags_examples").glob("*.py"))
STOCKHOLM = timezone(timedelta(hours=1))


def load(name: str) -> ModuleType:
    [file] = [path for path in EXAMPLES if path.stem == name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_all_here() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "intergiro_call_endpoint", "intergiro_hook_in_task", "intergiro_http_operator", "intergiro_nightly_pull",
    ]  # fmt: skip


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: path.stem)
def test_each_parses_and_imports_no_hook(file: Path) -> None:
    """As the DAG processor does, in a process that has imported Airflow before. HttpOperator itself is not cheap."""
    script = (
        f"import runpy, sys; runpy.run_path({str(file)!r}); print('intergiro_provider.hooks.intergiro' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


class TestTheNightlyDay:
    @pytest.fixture
    def nightly(self) -> Any:
        return load("intergiro_nightly_pull").intergiro_nightly()

    @pytest.fixture
    def plan(self, nightly: Any) -> Callable[..., list[dict[str, Any]]]:
        function: Callable[..., list[dict[str, Any]]] = nightly.get_task("plan").python_callable
        return function

    def day(self, pulls: list[dict[str, Any]]) -> str:
        """The day of the one list that has bounds, which all directories bear, and which is a whole day in UTC."""
        [bounded] = [pull for pull in pulls if "created_from" in pull]
        start, end = (datetime.fromisoformat(bounded[name]) for name in ("created_from", "created_to"))
        assert start.utcoffset() == timedelta(0)
        assert (start.hour, start.minute, start.second, start.microsecond) == (0, 0, 0, 0)
        assert end - start == timedelta(days=1)
        assert {pull["path"].rpartition("/")[2] for pull in pulls} == {f"day={start:%Y-%m-%d}"}
        return f"{start:%Y-%m-%d}"

    def test_a_pull_for_each_list(self, plan: Callable[..., Any]) -> None:
        pulls = plan(data_interval_end=datetime(2026, 3, 2, 2, tzinfo=UTC))
        assert [pull["endpoint"] for pull in pulls] == ["transactions", "accounts", "cards", "individuals"]
        assert len({pull["path"] for pull in pulls}) == 4

    @pytest.mark.parametrize(
        "due",
        [
            datetime(2026, 3, 2, 2, tzinfo=UTC),
            datetime(2026, 3, 2, 0, 0, 0, 1, tzinfo=UTC),
            datetime(2026, 3, 2, 23, 59, tzinfo=UTC),
            datetime(2026, 3, 3, 0, 59, tzinfo=STOCKHOLM),
        ],
    )
    def test_the_day_before(self, plan: Callable[..., Any], due: datetime) -> None:
        assert self.day(plan(data_interval_end=due, dag_run=None)) == "2026-03-01"
        assert self.day(plan(dag_run=SimpleNamespace(run_after=due))) == "2026-03-01"

    def test_scheduled_runs(self, nightly: Any, plan: Callable[..., Any]) -> None:
        """Day after day without a gap, by the timetable that Airflow's scheduler asks."""
        from airflow.timetables.base import TimeRestriction

        timetable = core_timetable(nightly)
        restriction = TimeRestriction(earliest=nightly.start_date, latest=None, catchup=True)
        last, days = None, []
        for _ in range(3):
            info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
            last = info.data_interval
            assert last.start < last.end
            days.append(self.day(plan(data_interval_end=last.end)))
        assert days == ["2024-01-01", "2024-01-02", "2024-01-03"]

    def test_runs_by_hand(self, nightly: Any, plan: Callable[..., Any]) -> None:
        import pendulum

        interval = core_timetable(nightly).infer_manual_data_interval(run_after=pendulum.datetime(2026, 3, 2, 15, 30))
        assert self.day(plan(data_interval_end=interval.end)) == "2026-03-01"


def core_timetable(dag: Any) -> Any:
    """The timetable that the scheduler makes of the one in the DAG; on Airflow 2 it is the same."""
    try:
        from airflow.serialization.decoders import decode_timetable
        from airflow.serialization.encoders import encode_timetable
    except ImportError:
        return dag.timetable
    return decode_timetable(encode_timetable(dag.timetable))


def test_the_target_is_the_environments_or_beside_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
    monkeypatch.delenv("INTERGIRO_EXAMPLE_TARGET", raising=False)
    assert load("intergiro_nightly_pull").TARGET == "file:///opt/airflow/intergiro"
    monkeypatch.setenv("INTERGIRO_EXAMPLE_TARGET", "s3://aws_default@lake/intergiro")
    assert load("intergiro_nightly_pull").TARGET == "s3://aws_default@lake/intergiro"
