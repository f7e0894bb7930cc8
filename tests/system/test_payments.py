# SPDX-License-Identifier: Apache-2.0
"""Payments in a real Airflow: with a person's consent, with a person's approval, and with an API key that changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from intergiro_provider.sandbox import Sandbox
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY
from scripts.airflow_stack import AirflowStack
from scripts.leaks import files, find
from tests.system.browser import WIDE, Pictures, Watched
from tests.system.conftest import AIRFLOW, IBAN, NAME, REFERENCE, System

if AIRFLOW < (3, 1):
    pytest.skip("needs Airflow 3.1: plugins' pages and ApprovalOperator", allow_module_level=True)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

APPROVED = "intergiro_pay_approved"
KEYS = ("5a4db0c5-0000-4000-8000-0000000000aa", "5a4db0c5-0000-4000-8000-0000000000bb")


@dataclass
class Paying:
    """An Airflow and its bank."""

    system: System
    bank: Sandbox
    records: Path
    runs: dict[str, str]

    @property
    def airflow(self) -> AirflowStack:
        return self.system.airflow

    def state(self, dag: str, run: str, task: str) -> str:
        return next(str(t["state"]) for t in self.airflow.rest.task_instances(dag, run) if t["task_id"] == task)

    def made(self, amount: int) -> list[dict[str, Any]]:
        """Return the bank's payments of this amount. Each payment of these tests has another amount."""
        booked = map(json.loads, self.bank.records("/v3/transactions"))
        return [t for t in booked if t["reference"] in (REFERENCE, "Membership fee") and t["amount"] == -amount]

    def refuse_leaks(self, *further: str) -> None:
        """Check that no file in the Airflow home contains account data."""
        secrets = (IBAN, NAME, json.dumps(NAME)[1:-1], REFERENCE, *further)
        assert find(secrets, files(self.airflow.home)) == []


@pytest.fixture(scope="module")
def paying(system: System) -> Iterator[Paying]:
    """Start the payments that a person has to agree to."""
    with Sandbox(transactions=10, pay_consent_above=100_00, api_keys=(DEFAULT_API_KEY, *KEYS)) as bank:
        euros = [a["id"] for a in map(json.loads, bank.records("/v3/accounts")) if a["currency"] == "EUR"]
        records = system.data / "records"
        variables = {"intergiro_paying_account": euros[0], "other": euros[1], "records": f"file://{records}"}
        for name, value in variables.items():
            system.airflow.rest.call("POST", "/variables", json={"key": name, "value": value})
        with system.connected(bank.port, DEFAULT_API_KEY, "http://localhost"):
            runs = {dag: system.start(dag) for dag in ("consent", APPROVED)}
            yield Paying(system, bank, records, runs)


def test_consent_on_airflows_page(paying: Paying, browser: Browser, pictures: Pictures) -> None:
    """A person follows the link to the bank's page, which is on another site than Airflow, as in production."""
    run = paying.runs["consent"]
    paying.system.until(lambda: paying.state("consent", run, "pay") == "deferred", "deferred")
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{paying.airflow.url}/dags/consent/runs/{quote(run)}/tasks/pay")
    page.get_by_role("link", name="Details", exact=True).click()
    link = page.get_by_role("link", name="Give consent", exact=True)
    link.wait_for()
    take(pictures, watched, "pay-consent-link", 360)
    link.click()
    button = page.get_by_role("button", name="Continue at Intergiro")
    button.wait_for()
    take(pictures, watched, "pay-consent-page", 440)
    button.click()
    approve = page.get_by_role("button", name="Approve")
    approve.wait_for()
    assert page.url.startswith(f"http://localhost:{paying.bank.port}/")
    secret = page.url.rpartition("/")[2]
    approve.click()
    page.get_by_text("The task continues by itself").wait_for()
    assert page.url.startswith(f"{paying.airflow.url}/intergiro/consents/consent/")
    page.close()
    paying.system.finish("consent", run)
    [payment] = paying.made(125_00)
    [record] = [json.loads(file.read_text()) for file in paying.records.glob("payment-*.json")]
    assert record["payment_id"] == payment["id"]
    paying.refuse_leaks(secret)


def test_a_plan_that_a_person_approves(paying: Paying, browser: Browser, pictures: Pictures) -> None:
    """A person approves the plan in the list of required actions. The record names the person."""
    run = paying.runs[APPROVED]
    paying.system.until(lambda: paying.state(APPROVED, run, "approve") in ("deferred", "awaiting_input"), "asked")
    assert paying.made(100_00) == []
    # Airflow fails a task if the person responds before the scheduler has seen the end of the worker.
    events = paying.airflow.home / "component-logs" / "scheduler.log"
    seen = re.compile(f"Received executor event .*dag_id='{APPROVED}', task_id='approve'")
    paying.system.until(lambda: seen.search(events.read_text()) is not None, "seen by the scheduler")
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{paying.airflow.url}/required_actions")
    page.get_by_role("link", name="Pay the membership fee?").click()  # the subject of the decision
    approve = page.get_by_role("button", name="Approve", exact=True)
    approve.wait_for()
    take(pictures, watched, "pay-approval", 420)
    with page.expect_response(lambda answer: answer.request.method == "PATCH") as answered:
        approve.click()
    assert answered.value.ok
    page.close()
    paying.system.finish(APPROVED, run)
    [payment] = paying.made(100_00)
    [record] = [json.loads(file.read_text()) for file in (paying.system.data / "examples").rglob("payment-*.json")]
    assert (record["payment_id"], record["state"]) == (payment["id"], "confirmed")
    assert record["approved_by"]
    paying.refuse_leaks()


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="the state store came with Airflow 3.3")
def test_a_retry_sends_the_key_of_the_first_attempt_although_the_api_key_has_changed(paying: Paying) -> None:
    """There is no record, and the bank shows no transactions. Only Airflow's task state store has the key."""
    rest, bank, path = paying.airflow.rest, paying.bank, "/v3/transactions/move"
    connection = {"conn_type": "intergiro", "host": "http://127.0.0.1", "port": bank.port}
    rest.put_connection("rotated", **connection, password=KEYS[0])
    lost = bank.fault("lose_response", path, method="POST")
    hidden = bank.fault("status", "/v3/transactions$", method="GET", status=503)
    logins = bank.counters().logins
    run = paying.system.start("new_key")
    paying.system.until(lambda: paying.state("new_key", run, "pay") == "up_for_retry", "up for retry")
    rest.put_connection("rotated", **connection, password=KEYS[1])
    bank.set(api_keys=[DEFAULT_API_KEY, KEYS[1]])  # the retry cannot log in with the earlier key
    bank.clear_faults(lost)
    paying.system.finish("new_key", run)
    bank.clear_faults(hidden)

    [payment] = paying.made(7_00)
    sent = [json.loads(request["body"])["request_id"] for request in bank.requests() if request["path"] == path]
    assert sent == [payment["request_id"]] * 4, "three of the first try, one of its retry"
    assert bank.counters().logins == logins + 2, "one with each API key"


def take(pictures: Pictures, watched: Watched, name: str, height: int) -> None:
    """Take a screenshot of the upper part of a page, without account data and paths."""
    shown = watched.page.locator("body").inner_text()
    assert not [secret for secret in (IBAN, NAME, REFERENCE, "file://", "/tmp", "localhost") if secret in shown]
    watched.page.set_viewport_size({"width": 1280, "height": height})
    pictures.take(watched, name)
    watched.page.set_viewport_size(WIDE)
