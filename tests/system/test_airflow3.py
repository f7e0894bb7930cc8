# SPDX-License-Identifier: Apache-2.0
"""The provider in a real Airflow 3 with scheduler, LocalExecutor and API server. The bank is a sandbox process."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.leaks import database_cells, files, find
from tests.system.conftest import ACCESS_TOKEN_LIFE, AIRFLOW, TRANSACTIONS, System

if AIRFLOW < (3, 0):
    pytest.skip("needs the components of Airflow 3", allow_module_level=True)

#: How long each task of the shared session calls the bank.
SECONDS = 12

#: An API key that the sandbox does not know.
WRONG_KEY = "5a4db0c5-0000-4000-8000-00000badc0de"


def difference(after: dict[str, Any], before: dict[str, Any], *names: str) -> dict[str, int]:
    """Return the increase of these counters."""
    return {name: after[name] - before[name] for name in names}


@pytest.fixture(scope="module")
def runs(system: System) -> dict[str, str]:
    """Start a run of each DAG, all at the same time, and let the scheduler start the nightly one."""
    conf: dict[str, dict[str, Any]] = {
        "shared_session": {"seconds": SECONDS},
        "doors": {"target": f"file://{system.data}/doors"},
    }
    by_hand = (*conf, "intergiro_call_endpoint", "intergiro_hook_in_task", "intergiro_http_operator")
    started = {dag_id: system.start(dag_id, **conf.get(dag_id, {})) for dag_id in by_hand}
    system.airflow.rest.set_paused("intergiro_nightly", False)
    return started


def test_every_door_leads_to_the_bank(system: System, runs: dict[str, str]) -> None:
    target = system.data / "doors"
    run = system.finish("doors", runs["doors"])

    result = {
        task: system.airflow.rest.xcom("doors", run, task)
        for task in ("hook_in_task", "call_operator", "stock_http_operator", "transfer")
    }
    accounts = len(result["call_operator"])
    assert accounts > 1
    assert result["hook_in_task"] == {
        "accounts": accounts,
        "by_full_path": accounts,
        "transactions": TRANSACTIONS,
        "pooled_status": 200,
    }
    assert result["stock_http_operator"] == {"pages": TRANSACTIONS // 50, "records": TRANSACTIONS}

    manifest = json.loads((target / "_manifest.json").read_bytes())
    assert result["transfer"] == manifest
    assert manifest["rows"] == TRANSACTIONS
    assert len({json.loads(line)["id"] for line in published(manifest, target)}) == TRANSACTIONS


def test_mapped_tasks_share_one_session(system: System, runs: dict[str, str]) -> None:
    """Six tasks run at the same time until the token has expired in each. There is one login."""
    run = system.finish("shared_session", runs["shared_session"], 240)
    counters = system.bank.counters()

    instances = system.airflow.rest.task_instances("shared_session", run)
    assert [(item["state"], item["try_number"]) for item in instances] == [("success", 1)] * 6
    calls = [system.airflow.rest.xcom("shared_session", run, "call_for_a_while", index) for index in range(6)]
    assert min(calls) > 5
    assert counters["logins"] == 1, "the only login since the stack was started"
    assert counters["refreshes"] >= SECONDS // ACCESS_TOKEN_LIFE
    assert [counters[f"refresh_{what}"] for what in ("early", "reused", "refused")] == [0, 0, 0]
    assert counters["fraud_blocks"] == 0


@pytest.mark.parametrize(
    ("dag_id", "task_id", "expected"),
    [
        ("intergiro_call_endpoint", "accounts", 60),
        ("intergiro_hook_in_task", "count_cards", 180),
        ("intergiro_http_operator", "individuals", 250),
    ],
)
def test_example_run_by_hand(system: System, runs: dict[str, str], dag_id: str, task_id: str, expected: int) -> None:
    run = system.finish(dag_id, runs[dag_id])
    result = system.airflow.rest.xcom(dag_id, run, task_id)
    assert (sum(result.values()) if isinstance(result, dict) else result) == expected


def published(manifest: dict[str, Any], directory: Path) -> list[bytes]:
    """Return the records of a pull, in the order of its manifest."""
    return [
        line
        for part in manifest["parts"]
        for line in gzip.decompress((directory / part["path"]).read_bytes()).splitlines()
    ]


def check_nightly(system: System, run_id: str, day: date) -> None:
    """Check that the run has pulled this day's transactions byte for byte, and has emitted the asset events."""
    rest = system.airflow.rest
    expected = system.bank.records(f"{day}T00:00:00Z", f"{day + timedelta(days=1)}T00:00:00Z")
    assert expected
    directory = system.data / "examples" / "transactions" / f"day={day}"
    manifest = json.loads((directory / "_manifest.json").read_bytes())
    assert sorted(published(manifest, directory)) == sorted(expected)
    assert manifest["rows"] == len(expected)

    rows = rest.xcom("intergiro_nightly", run_id, "announce")
    assert rows == {"transactions": len(expected), "accounts": 60, "cards": 180, "individuals": 250}
    events = rest.call("GET", "/assets/events", source_dag_id="intergiro_nightly", source_run_id=run_id)
    assert sorted(event["extra"]["rows"] for event in events["asset_events"]) == sorted(rows.values())


def test_nightly_example_made_by_the_scheduler(system: System, runs: dict[str, str]) -> None:
    """When the DAG is unpaused, the scheduler creates a run for the last whole day."""
    [run] = system.until(lambda: system.airflow.rest.runs("intergiro_nightly"), "a run")
    assert run["run_type"] == "scheduled"
    system.finish("intergiro_nightly", run["dag_run_id"])
    due = datetime.fromisoformat(run["data_interval_end"])
    assert datetime.now(UTC) - due < timedelta(days=1, minutes=5)
    check_nightly(system, run["dag_run_id"], due.date() - timedelta(days=1))


def test_nightly_example_run_by_hand(system: System) -> None:
    """The run has no logical date and no data interval. It pulls yesterday, at any time of day."""
    run_id = system.run("intergiro_nightly")
    run = system.airflow.rest.run("intergiro_nightly", run_id)
    due = datetime.fromisoformat(run["data_interval_end"] or run["run_after"])
    check_nightly(system, run_id, due.date() - timedelta(days=1))


def test_renewals_are_counted_where_airflow_counts(system: System) -> None:
    """StatsD and the bank count the same renewals. So far, only tasks have renewed the session."""
    counters = system.bank.counters()
    assert system.statsd.count("intergiro.session.logins") == counters["logins"] == 1
    assert system.statsd.count("intergiro.session.renewals") == counters["logins"] + counters["refreshes"]
    assert len(system.statsd.times("intergiro.session.renewal_duration")) == counters["logins"] + counters["refreshes"]
    assert system.statsd.times("intergiro.session.wait"), "six processes met at an expiry"
    assert system.statsd.count("intergiro.session.unexpected_logins") == 0
    assert system.statsd.count("intergiro.session.refused") == counters["refresh_refused"] == 0


def connection(system: System, key: str, port: int | None = None) -> dict[str, Any]:
    """Return the body of the request with which the form tests a connection."""
    return {
        "connection_id": "intergiro_trial",
        "conn_type": "intergiro",
        "host": "http://127.0.0.1",
        "port": port or system.bank.port,
        "password": key,
        "extra": json.dumps({"api": None, "max_logins_per_hour": None}),
    }


def good_key(system: System) -> str:
    """Return the API key that the sandbox accepts."""
    key: str = system.bank.settings()["api_keys"][0]
    return key


def test_the_test_button_logs_in_once_and_says_so(system: System) -> None:
    before = system.bank.counters()
    answer = system.airflow.rest.call("POST", "/connections/test", json=connection(system, good_key(system)))
    assert answer["status"] is True, answer["message"]
    assert "login" in answer["message"].lower()
    assert system.bank.counters()["logins"] == before["logins"] + 1
    assert not [key for key in system.airflow.rest.variables() if "trial" in key], "it keeps nothing"


def test_the_test_button_with_a_wrong_key(system: System) -> None:
    before = system.bank.counters()
    answer = system.airflow.rest.call("POST", "/connections/test", json=connection(system, WRONG_KEY))
    assert answer["status"] is False
    assert WRONG_KEY not in answer["message"]
    assert difference(system.bank.counters(), before, "logins", "login_refused") == {"logins": 0, "login_refused": 1}


def test_the_test_button_with_an_unreachable_host(system: System) -> None:
    answer = system.airflow.rest.call("POST", "/connections/test", json=connection(system, WRONG_KEY, port=1))
    assert answer["status"] is False
    assert WRONG_KEY not in answer["message"]


def test_connection_test_in_a_worker(system: System) -> None:
    rest = system.airflow.rest
    if "/api/v2/connections/enqueue-test" not in rest.request("GET", "/openapi.json").json()["paths"]:
        pytest.skip("this Airflow cannot test connections in a worker")
    before = system.bank.counters()
    queued = rest.call("POST", "/connections/enqueue-test", json=connection(system, good_key(system)))
    token = {"Airflow-Connection-Test-Token": queued["token"]}

    def ended() -> Any:
        state = rest.call("GET", "/connections/enqueue-test", headers=token)
        return state["state"] in {"success", "failed"} and state

    state = system.until(ended, "a result")
    assert state["state"] == "success", state
    assert "login" in state["result_message"].lower()
    assert system.bank.counters()["logins"] == before["logins"] + 1


def test_connection_test_by_cli(system: System) -> None:
    before = system.bank.counters()
    done = system.airflow.airflow("connections", "test", "intergiro_default")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "success" in done.stdout.lower()
    assert good_key(system) not in done.stdout + done.stderr
    assert system.bank.counters()["logins"] == before["logins"] + 1


def test_connection_form_is_built_from_the_provider_info(system: System) -> None:
    """The API server sends this data to the form in the browser."""
    if AIRFLOW < (3, 2):
        pytest.skip("before Airflow 3.2 the form comes from the hook, if the API server needed no hook until then")
    answer = system.airflow.rest.request("GET", "/ui/connections/hook_meta")
    answer.raise_for_status()
    (form,) = [item for item in answer.json() if item["connection_type"] == "intergiro"]
    assert form["hook_name"] == "Intergiro"
    assert form["standard_fields"]["password"]["title"] == "API key"
    assert form["standard_fields"]["login"]["hidden"] is True
    assert form["standard_fields"]["url_schema"]["hidden"] is True
    assert form["extra_fields"]["api"]["schema"]["enum"] == ["3d", "2d"]
    assert form["extra_fields"]["api"]["value"] is None


def test_tokens_are_masked_where_people_look(system: System) -> None:
    variables = system.airflow.rest.variables()
    (name,) = (name for name in variables if re.fullmatch("intergiro_session_[0-9a-f]{16}", name))
    session = json.loads(variables[name])
    assert session["access_token"] == "***"
    assert session["refresh_token"] == "***"


def test_nothing_listens_beyond_loopback(system: System) -> None:
    assert len(system.airflow.processes.listeners()) >= 2
    assert system.airflow.processes.exposed() == []


def test_no_token_is_written_anywhere(system: System) -> None:
    """After all other tests: no log, no row of the database and no file of a pull contains a token or an API key."""
    secrets = system.bank.tokens() | {good_key(system), WRONG_KEY}
    assert len(secrets) > 3
    home = system.airflow.home
    cells = list(database_cells(home / "airflow.db"))
    places = list(files(home, without=[home / "dags"]))
    assert {"xcom.value", "variable.val", "log.extra"} <= {name for name, _ in cells}
    assert any(name.startswith("logs/dag_id=doors") for name, _ in places)
    sandbox_log = "component-logs/sandbox.log"  # at its start, it logs the API key that it accepts
    assert [name for name in find(secrets, places) if name != sandbox_log] == []
    assert find(secrets, cells) == []
    # Check the search itself: the connection's id occurs in many places.
    assert find(["intergiro_default"], cells)
