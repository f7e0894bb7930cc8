# SPDX-License-Identifier: Apache-2.0
"""Payments in a real Airflow: one that waits for consent on Airflow's own page, one whose plan a person approves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from intergiro_provider.sandbox import Sandbox
from scripts.airflow_stack import AirflowStack
from tests.system.conftest import AIRFLOW

if AIRFLOW < (3, 1):
    pytest.skip("needs Airflow 3.1: plugins' pages and ApprovalOperator", allow_module_level=True)

PATIENCE = 200.0
IBAN, NAME, REFERENCE = "SE4550000000058398257466", "Åsa Öberg", "Rent of Åsa"


@dataclass
class Paying:
    """An Airflow and its bank."""

    airflow: AirflowStack
    bank: Sandbox
    records: Path

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            self.airflow.processes.check()
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:.0f} s"
            time.sleep(0.3)
        return found

    def state(self, dag: str, run: str, task: str) -> str:
        return next(str(t["state"]) for t in self.airflow.rest.task_instances(dag, run) if t["task_id"] == task)

    def made(self) -> list[dict[str, Any]]:
        booked = map(json.loads, self.bank.records("/v3/transactions"))
        return [t for t in booked if t["reference"] == REFERENCE and t["amount"] < 0]


@pytest.fixture(scope="module")
def paying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paying]:
    home = tmp_path_factory.mktemp("payments")
    with Sandbox(transactions=10, pay_consent_above=1) as bank:
        euros = [a["id"] for a in map(json.loads, bank.records("/v3/accounts")) if a["currency"] == "EUR"]
        payee = json.dumps({"name": NAME, "iban": IBAN, "bic": "ESSESESS"}, ensure_ascii=False)
        variables = {
            "account": euros[0],
            "other": euros[1],
            "ref": REFERENCE,
            "payee": payee,
            "records": f"file://{home}/r",
        }
        env = {f"AIRFLOW_VAR_{name.upper()}": value for name, value in variables.items()}
        env |= {
            "AIRFLOW_CONN_INTERGIRO_DEFAULT": bank.connection(), "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"
        }  # fmt: skip
        with AirflowStack(home, Path(__file__).parent / "payments_dags", env) as airflow:
            stack = Paying(airflow, bank, home / "r")
            stack.until(lambda: {"consent", "approval"} <= airflow.rest.dag_ids(), "DAGs")
            yield stack


def test_consent_on_airflows_page(paying: Paying) -> None:
    rest = paying.airflow.rest
    run = rest.trigger("consent")
    paying.until(lambda: paying.state("consent", run, "pay") == "deferred", "deferred")
    page = f"/intergiro/consents/consent/{quote(run, safe='')}/pay/-1"
    shown = paying.until(lambda: (r := rest.request("GET", page)).status_code == 200 and r, "page")
    assert "Continue at Intergiro" in shown.text
    leading = rest.request("POST", page, allow_redirects=False)
    assert leading.status_code == 303
    url = leading.headers["Location"]
    back = requests.post(f"{url}/approved", allow_redirects=False, timeout=60)
    assert back.headers["Location"].startswith(paying.airflow.url)
    returned = rest.request("GET", back.headers["Location"].removeprefix(paying.airflow.url))
    assert "The task continues by itself" in returned.text
    assert rest.wait_for_run("consent", run, PATIENCE)["state"] == "success"
    [payment] = paying.made()
    [record] = [json.loads(file.read_text()) for file in paying.records.glob("payment-*.json")]
    assert record["payment_id"] == payment["id"]
    secrets = [
        s.encode() for s in (IBAN, NAME, NAME.encode("unicode_escape").decode(), REFERENCE, url.rpartition("/")[2])
    ]
    for file in [f for f in paying.airflow.home.rglob("*") if f.is_file()]:
        content = file.read_bytes()
        assert not [s for s in secrets if s in content], file


def test_a_plan_that_a_person_approves(paying: Paying) -> None:
    rest = paying.airflow.rest
    run = rest.trigger("approval")
    paying.until(lambda: paying.state("approval", run, "approve") in ("deferred", "awaiting_input"), "asked")
    before = len(paying.made())
    # Airflow fails a task that is answered before its scheduler has seen that the worker is done with it.
    events = paying.airflow.home / "component-logs" / "scheduler.log"
    seen = re.compile("Received executor event .*dag_id='approval', task_id='approve'")
    paying.until(lambda: seen.search(events.read_text()) is not None, "seen by the scheduler")
    rest.call(
        "PATCH", f"/dags/approval/dagRuns/{quote(run, safe='')}/taskInstances/approve/-1/hitlDetails",
        json={"chosen_options": ["Approve"], "params_input": {}},
    )  # fmt: skip
    assert rest.wait_for_run("approval", run, PATIENCE)["state"] == "success"
    assert len(paying.made()) == before + 1
