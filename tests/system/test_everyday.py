# SPDX-License-Identifier: Apache-2.0
"""Tasks in a real Airflow: links, rendered fields, pools, and the events of OpenLineage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.system.conftest import AIRFLOW, System

if AIRFLOW < (3, 0):
    pytest.skip("on Airflow 2 the same DAG runs in test_airflow2", allow_module_level=True)

PORTAL = "https://www.intergiro.com/"
ENDED = {"COMPLETE", "FAIL"}


@pytest.fixture(scope="module")
def run(system: System) -> str:
    """Run the DAG once, for all tests."""
    system.airflow.rest.call("POST", "/pools", json={"name": "bank", "slots": 2})
    return system.run("everyday", target=f"file://{system.data}/everyday", connection="intergiro_default")


@pytest.fixture(scope="module")
def instances(system: System, run: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the run's task instances, by task id and map index."""
    found = system.airflow.rest.task_instances("everyday", run)
    return {(instance["task_id"], instance["map_index"]): instance for instance in found}


@pytest.fixture(scope="module")
def ended(system: System, instances: dict[tuple[str, int], Any]) -> dict[str, list[dict[str, Any]]]:
    """Return OpenLineage's events for the end of each task. They arrive after the task has its final state."""
    system.until(lambda: len(list(_ends(system))) == len(instances), "an event for each task")
    found: dict[str, list[dict[str, Any]]] = {}
    for event in _ends(system):
        found.setdefault(event["job"]["name"].removeprefix("everyday."), []).append(event)
    return found


def _ends(system: System) -> Iterator[dict[str, Any]]:
    for file in system.lineage.iterdir():
        try:
            event = json.loads(file.read_text())
        except ValueError:  # the file is being written
            continue
        if event["eventType"] in ENDED and event["job"]["name"].startswith("everyday."):
            yield event


def links(system: System, run: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
    path = f"/dags/everyday/dagRuns/{quote(run)}/taskInstances/{task_id}/links"
    found: dict[str, Any] = system.airflow.rest.call("GET", path, map_index=map_index)["extra_links"]
    return found


class TestLinks:
    def test_to_a_manifest_in_a_cloud(self, system: System, run: str) -> None:
        assert links(system, run, "pull") == {
            "Manifest": "https://console.cloud.google.com/storage/browser/_details/lake/accounts/"
            f"{quote(run)}/_manifest.json",
            "Intergiro portal": PORTAL,
        }

    def test_none_to_local_files(self, system: System, run: str) -> None:
        assert links(system, run, "pull_mapped", 1) == {"Manifest": None, "Intergiro portal": PORTAL}

    def test_none_to_what_was_not_published(self, system: System, run: str) -> None:
        assert links(system, run, "broken") == {"Manifest": None, "Intergiro portal": PORTAL}

    def test_of_a_call(self, system: System, run: str) -> None:
        assert links(system, run, "call", 0) == {"Intergiro portal": PORTAL}


class TestTasks:
    def test_default_args_reach_all_and_the_pool_holds_them(self, instances: dict[Any, Any]) -> None:
        assert set(instances) == {
            ("pull", -1), ("pull_mapped", 0), ("pull_mapped", 1), ("broken", -1), ("call", 0), ("call", 1),
            ("counted", -1), ("last", -1),
        }  # fmt: skip
        for (task_id, _), instance in instances.items():
            assert instance["pool"] == ("default_pool" if task_id == "counted" else "bank")
            assert instance["max_tries"] == 2
            assert instance["priority_weight"] >= (7 if task_id == "call" else 1)
            assert instance["state"] == ("failed" if task_id == "broken" else "success")

    def test_an_error_that_is_final_is_not_tried_again(self, instances: dict[Any, Any]) -> None:
        assert instances["broken", -1]["try_number"] == 1

    def test_results(self, system: System, run: str) -> None:
        rest = system.airflow.rest
        assert [len(rest.xcom("everyday", run, "call", index)["data"]) for index in (0, 1)] == [1, 2]
        counted = rest.xcom("everyday", run, "counted")
        assert counted == rest.xcom("everyday", run, "last") == rest.xcom("everyday", run, "pull")["rows"] > 2

    def test_rendered_fields(self, system: System, run: str) -> None:
        def rendered(task: str) -> Any:
            path = f"/dags/everyday/dagRuns/{quote(run)}/taskInstances/{task}"
            return system.airflow.rest.call("GET", path)["rendered_fields"]

        assert rendered("pull") == {
            "endpoint": "accounts",
            "path": f"gs://google@lake/accounts/{run}",
            "query": {"limit": 2},
            "created_from": None,
            "created_to": None,
            "intergiro_conn_id": "intergiro_default",
        }
        assert rendered("pull_mapped/0")["path"] == f"file://{system.data}/everyday/cards"
        assert rendered("call/1") == {
            "endpoint": "accounts",
            "method": "GET",
            "query": {"limit": 2},
            "json": None,
            "headers": None,
            "intergiro_conn_id": "intergiro_default",
        }


class TestLineage:
    def test_where_from_and_where_to(self, system: System, ended: dict[str, Any], run: str) -> None:
        [event] = ended["pull"]
        [source], [target] = event["inputs"], event["outputs"]
        assert (source["namespace"], source["name"]) == (f"http://127.0.0.1:{system.bank.port}", "v3/accounts")
        assert (target["namespace"], target["name"]) == ("gs://lake", f"accounts/{run}")

    def test_how_much_and_which_version(self, system: System, ended: dict[str, Any], run: str) -> None:
        manifest = system.airflow.rest.xcom("everyday", run, "pull")
        [target] = ended["pull"][0]["outputs"]
        statistics = target["outputFacets"]["outputStatistics"]
        assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (
            manifest["rows"], manifest["bytes"], len(manifest["parts"]),
        )  # fmt: skip
        assert target["facets"]["version"]["datasetVersion"] == manifest["pull_id"]

    def test_the_names_and_types_of_fields_and_no_value(self, system: System, ended: dict[str, Any]) -> None:
        account = json.loads(
            system.bank.records("2000-01-01T00:00:00.000Z", "2100-01-01T00:00:00.000Z", "/v3/accounts")[0]
        )
        [event] = ended["pull"]
        for dataset in (*event["inputs"], *event["outputs"]):
            fields = {field["name"]: field["type"] for field in dataset["facets"]["schema"]["fields"]}
            assert (
                {"id", "currency", "balance", "created_at"} <= set(fields) <= set(account)
            )  # not every account has all
            assert (fields["id"], fields["balance"]) == ("string", "integer")
        assert account["id"] not in json.dumps(event)

    def test_mapped_tasks_tell_of_their_own(self, system: System, ended: dict[str, Any]) -> None:
        names = {event["outputs"][0]["name"]: event["inputs"][0]["name"] for event in ended["pull_mapped"]}
        assert names == {
            f"{system.data}/everyday/cards": "v3/cards",
            f"{system.data}/everyday/individuals": "v3/individuals",
        }
        assert {event["outputs"][0]["namespace"] for event in ended["pull_mapped"]} == {"file"}

    def test_a_failure_is_told_with_no_result(self, system: System, ended: dict[str, Any]) -> None:
        [event] = ended["broken"]
        assert event["eventType"] == "FAIL"
        assert event["inputs"][0]["name"] == "v3/no_such_list"
        [target] = event["outputs"]
        assert target["name"] == f"{system.data}/everyday/broken"
        assert "version" not in target.get("facets", {})
        assert not target.get("outputFacets")
