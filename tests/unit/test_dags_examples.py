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
        "intergiro_call_endpoint", "intergiro_daily", "intergiro_hook_in_task", "intergiro_http_operator",
        "intergiro_increments", "intergiro_nightly_pull", "intergiro_on_new_transactions", "intergiro_partitions",
        "intergiro_to_duckdb",
        "intergiro_to_postgres",
        "intergiro_wait_for_event",
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


@pytest.mark.parametrize(
    ("end", "after", "day"),
    [
        (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC), "2026-03-01"),  # scheduled
        (None, datetime(2026, 3, 2, 15, 30, tzinfo=UTC), "2026-03-01"),  # by hand, through Airflow 3's API
    ],
)
def test_daily_takes_the_day_before(end: datetime | None, after: datetime, day: str) -> None:
    """Whether or not the run has a data interval; one without has no such names in its context."""
    from airflow import macros

    pull = load("intergiro_daily").intergiro_daily().get_task("pull")
    context = {"dag_run": SimpleNamespace(data_interval_end=end, run_after=after), "macros": macros}
    context |= {} if end is None else {"data_interval_end": end}
    assert pull.render_template(pull.created_from, context) == day


def test_no_example_starts_another() -> None:
    """An asset is one example's own: what an event of it means is between those who share its name."""
    names: dict[str, str] = {}
    for file in EXAMPLES:
        for value in vars(load(file.stem)).values():
            for asset in value.values() if isinstance(value, dict) else [value]:
                if type(asset).__name__ in ("Asset", "Dataset"):
                    assert names.setdefault(asset.uri, file.stem) == file.stem, asset.uri
    assert len(names) >= 5


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


class EventsOf:
    """What Airflow hands to a task: events by asset. No dict, since before 3.2 an asset has no hash."""

    def __init__(self, asset: Any, events: list[Any]) -> None:
        self._asset, self._events = asset, events

    def __getitem__(self, asset: Any) -> list[Any]:
        assert asset == self._asset
        return self._events


@pytest.mark.skipif(
    load("intergiro_on_new_transactions").AssetWatcher is None, reason="event-driven DAGs are Airflow 3's"
)
class TestNewTransactions:
    def test_nobody_else_defines_the_watched_asset(self) -> None:
        """All examples may lie in one folder. A DAG file that names the asset without a watcher would take it away."""
        watched = load("intergiro_on_new_transactions").NEW.name
        others = [path for path in EXAMPLES if path.stem != "intergiro_on_new_transactions"]
        assert [path.stem for path in others if f'Asset("{watched}"' in path.read_text(encoding="utf-8")] == []

    def test_an_event_that_a_person_made(self) -> None:
        """Beside the watcher's, which alone have a payload: its interval; by itself: the last day."""
        module = load("intergiro_on_new_transactions")
        interval = module.intergiro_on_new_transactions().get_task("interval").python_callable
        due = SimpleNamespace(run_after=datetime(2026, 3, 2, tzinfo=UTC))
        by_hand = SimpleNamespace(extra={})
        bounds = {"created_from": "2026-03-01T10:00:00Z", "created_to": "2026-03-01T11:00:00Z"}
        polled = SimpleNamespace(extra={"payload": bounds})
        assert interval(triggering_asset_events=EventsOf(module.NEW, [by_hand, polled]), dag_run=due) == bounds
        assert interval(triggering_asset_events=EventsOf(module.NEW, [by_hand]), dag_run=due) == {
            "created_from": "2026-03-01T00:00:00+00:00",
            "created_to": "2026-03-02T00:00:00+00:00",
        }
