# SPDX-License-Identifier: Apache-2.0
"""A failed task: its log ends with the message, which says what to do."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.system.browser import Pictures, Watched
from tests.system.conftest import AIRFLOW, System

if AIRFLOW < (3, 2):
    pytest.skip("the pages are those of Airflow 3.2 and later", allow_module_level=True)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TASKS = {
    "wrong_key": r"Intergiro does not accept the API key.*",
    "unreachable_bank": r".*the bank cannot be reached.*127\.0\.0\.1:9.*",
    "refused_payment": r"Intergiro returned 400 for POST /v3/transactions/pay \[field account_id, .*“No such account.*",
}


@pytest.fixture(scope="module")
def failed(system: System) -> str:
    """Return the run of a DAG whose tasks have failed."""
    key = {"conn_type": "intergiro", "host": "http://127.0.0.1"}
    system.airflow.rest.put_connection("wrong_key", **key, port=system.bank.port, password="5a4db0c5-0000-4000-8000")
    system.airflow.rest.put_connection("unreachable_bank", **key, port=9, password="5a4db0c5-0000-4000-8001")
    run = system.start("failures")
    state = system.airflow.rest.wait_for_run("failures", run, 240, system.airflow.processes.check)["state"]
    assert state == "failed"
    return run


@pytest.mark.parametrize("task", TASKS)
def test_the_message_is_what_the_log_ends_with(system: System, failed: str, task: str) -> None:
    log = system.airflow.rest.task_log("failures", failed, task)
    error, _, after = log[log.index("Task failed with exception") :].partition("::group::")

    (detail,) = ast.literal_eval("{'event': '" + error.rpartition("\n")[0])["error_detail"]
    assert re.match(TASKS[task], detail["exc_value"]), log
    assert detail["frames"][-1]["name"] == f"{detail['exc_type']}: {detail['exc_value']}"
    assert "'error'" not in after
    assert "intergiro_provider/" not in error, error
    assert "Lovelace" not in log
    assert "SE45" not in log


@pytest.mark.parametrize("task", TASKS)
def test_the_message_is_in_sight(browser: Browser, system: System, failed: str, task: str, pictures: Pictures) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{system.airflow.url}/dags/failures/runs/{quote(failed)}/tasks/{task}")
    page.get_by_role("button", name="Press f for fullscreen").click()
    message = page.get_by_role("dialog").get_by_text(re.compile(f"<intergiro>.*{TASKS[task]}")).last
    message.wait_for()
    page.keyboard.press("w")  # wraps long lines
    page.set_viewport_size({"width": 1200, "height": 640})
    page.wait_for_timeout(500)
    pictures.take(watched, f"failed-{task.replace('_', '-')}")
    box = message.bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 640, "the message is out of sight"
    page.close()
