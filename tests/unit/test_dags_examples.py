# SPDX-License-Identifier: Apache-2.0
"""The example DAGs parse, cheaply, and the nightly one pulls the right day. The integration tests run them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version
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
        "intergiro_pay_approved",
        "intergiro_to_duckdb",
        "intergiro_to_postgres",
        "intergiro_wait_for_event",
    ]  # fmt: skip


#: Parses each file on the command line in a fork of a process that has imported Airflow, as the DAG processor does.
PARSE = """
import os, runpy, sys
from airflow.providers.common.compat.sdk import dag
assert "intergiro_provider.hooks.intergiro" not in sys.modules
for path in sys.argv[1:]:
    if not os.fork():
        runpy.run_path(path)
        print("PARSED", path, "intergiro_provider.hooks.intergiro" in sys.modules, flush=True)
        os._exit(0)
    os.wait()
"""


def test_each_parses_and_imports_no_hook() -> None:
    """HttpOperator itself is not cheap."""
    command = [sys.executable, "-c", PARSE, *map(str, EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    parsed = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("PARSED")]
    assert parsed == [[str(file), "False"] for file in EXAMPLES], done.stderr


def test_an_approval_needs_airflow_3_1() -> None:
    """On older versions the file parses and has no DAG."""
    airflow = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
    assert hasattr(load("intergiro_pay_approved"), "intergiro_pay_approved") is (airflow >= (3, 1))


@pytest.mark.parametrize(
    ("end", "after", "day"),
    [
        (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC), "2026-03-01"),  # scheduled
        (None, datetime(2026, 3, 2, 15, 30, tzinfo=UTC), "2026-03-01"),  # by hand, through Airflow 3's API
    ],
)
def test_daily_takes_the_day_before(end: datetime | None, after: datetime, day: str) -> None:
    """With and without a data interval. Without one, the context does not contain its names."""
    from airflow import macros

    pull = load("intergiro_daily").intergiro_daily().get_task("pull")
    context = {"dag_run": SimpleNamespace(data_interval_end=end, run_after=after), "macros": macros}
    context |= {} if end is None else {"data_interval_end": end}
    assert pull.render_template(pull.created_from, context) == day


def test_no_example_starts_another() -> None:
    """Each example has its own assets, because other DAGs may emit events of another meaning for the same name."""
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
        """Return the day of the list with bounds: a whole day in UTC, which is in the names of all directories."""
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
        """The timetable of the scheduler gives day after day, without a gap."""
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
    """Return the scheduler's timetable for the one in the DAG. On Airflow 2 it is the same."""
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
    """Asset events as Airflow passes them to a task. Not a dict: before Airflow 3.2, assets have no hash."""

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
        """If all examples are in one folder, a DAG file with the same asset but no watcher would remove the watcher."""
        watched = load("intergiro_on_new_transactions").NEW.name
        others = [path for path in EXAMPLES if path.stem != "intergiro_on_new_transactions"]
        assert [path.stem for path in others if f'Asset("{watched}"' in path.read_text(encoding="utf-8")] == []

    def test_an_event_that_a_person_made(self) -> None:
        """With events of the watcher, which have a payload, their interval is pulled; without them, the last day."""
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
