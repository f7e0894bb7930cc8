# SPDX-License-Identifier: Apache-2.0
"""IntergiroSensor against a bank over real sockets, with a real session."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from intergiro_provider.api import retries
from intergiro_provider.exceptions import IntergiroError, IntergiroForbidden, IntergiroNotFound, IntergiroValueError
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.triggers.events import SUCCESS, error_event
from intergiro_provider.triggers.intergiro import IntergiroSensorTrigger
from tests.integration.pulls import Said, bank, said, shared_bank
from tests.integration.triggers.checks import is_completed

pytestmark = pytest.mark.integration

__all__ = ["bank", "said", "shared_bank"]  # fixtures

HAS_RECORDS = "intergiro_provider.sensors.checks.has_records"


@pytest.fixture
def transaction(bank: Sandbox) -> str:
    [made] = bank.add_transactions(status="pending")
    return made


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send each request once, because the retries of the hook take time. The tests of the hook check them."""
    monkeypatch.setattr(retries, "ATTEMPTS", 1)


def sensor(**arguments: Any) -> IntergiroSensor:
    return IntergiroSensor(
        **{
            "task_id": "wait", "endpoint": "transactions", "response_check": HAS_RECORDS, "poke_interval": 0.01,
            "timeout": 60, **arguments,
        }
    )  # fmt: skip


def wait(context: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return sensor(**arguments).execute(context or {})  # type: ignore[arg-type]


def asked(bank: Sandbox) -> int:
    return bank.counters().by_path["GET /v3/transactions"]


class TestInAWorker:
    def test_it_pokes_until_the_check_says_yes(self, bank: Sandbox, transaction: str) -> None:
        answers = []

        def check(response: Any) -> bool:
            answers.append(response.json()["status"])
            if len(answers) == 3:
                bank.change_transactions([transaction], status="completed")
            return is_completed(response)

        assert wait(endpoint=f"transactions/{transaction}", response_check=check) is None
        assert answers == ["pending", "pending", "pending", "completed"]

    def test_an_import_path(self, bank: Sandbox) -> None:
        wait(query={"limit": 1})
        assert bank.requests()[-1]["query"] == "limit=1"

    def test_a_check_gets_the_names_of_the_context_that_it_asks_for(self, bank: Sandbox) -> None:
        seen: dict[str, Any] = {}

        def check(response: Any, ds: str, **context: Any) -> bool:
            seen.update(context, ds=ds)
            return True

        wait({"ds": "2026-01-31", "run_id": "r"}, response_check=check)
        assert (seen["ds"], seen["run_id"]) == ("2026-01-31", "r")

    def test_it_continues_after_transient_errors(self, bank: Sandbox, one_attempt: None, said: Said) -> None:
        bank.fault("status", path="/v3/transactions", status=503, times=3)
        wait()
        assert asked(bank) == 4
        assert "The sensor continues to wait." in said()

    def test_until_its_timeout(self, bank: Sandbox, one_attempt: None) -> None:
        bank.fault("status", path="/v3/transactions", status=503)
        with pytest.raises(AirflowSensorTimeout):
            wait(timeout=0)
        with pytest.raises(AirflowSkipException):
            wait(timeout=0, soft_fail=True)

    @pytest.mark.parametrize(("status", "error"), [(403, IntergiroForbidden), (404, IntergiroNotFound)])
    def test_final_errors_end_it_at_once(self, bank: Sandbox, status: int, error: type[Exception]) -> None:
        bank.fault("status", path="/v3/transactions", status=status)
        with pytest.raises(error) as caught:
            wait()
        assert isinstance(caught.value, AirflowFailException), "and are not retried"
        with pytest.raises(AirflowSkipException):
            wait(soft_fail=True)
        assert asked(bank) == 2

    def test_a_check_that_raises_is_the_tasks_error(self, bank: Sandbox) -> None:
        def check(response: Any) -> bool:
            raise ValueError(response.text)

        with pytest.raises(IntergiroError, match=r"`response_check` \(.*check\) raised ValueError") as caught:
            wait(response_check=check)
        assert isinstance(caught.value.__cause__, ValueError)
        assert bank.records()[0].decode() not in str(caught.value)

    def test_a_check_in_a_folder_that_is_younger_than_the_process(
        self, bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plugins = tmp_path / "plugins"
        monkeypatch.syspath_prepend(plugins)
        with pytest.raises(IntergiroValueError, match="No module named 'made_later'.*restart the triggerer"):
            wait(response_check="made_later.is_met")
        plugins.mkdir()
        (plugins / "made_later.py").write_text("def is_met(response):\n    return True\n")
        wait(response_check="made_later.is_met")

    def test_a_check_that_is_nowhere(self, bank: Sandbox) -> None:
        with pytest.raises(IntergiroValueError, match="cannot be imported here"):
            wait(response_check="nosuch.module.check")
        assert asked(bank) == 0

    def test_rescheduled_it_frees_the_worker(self, bank: Sandbox) -> None:
        class TaskInstance:
            def get_first_reschedule_date(self, context: Any) -> None: ...

            dag_id = task_id = run_id = "x"
            map_index, max_tries, try_number = -1, 0, 1

        with pytest.raises(AirflowRescheduleException):
            wait({"ti": TaskInstance()}, mode="reschedule", poke_interval=60, query={"correlation_ids": "nosuch"})
        assert wait({"ti": TaskInstance()}, mode="reschedule", poke_interval=60) is None


class TestDeferred:
    def deferral(self, **arguments: Any) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as caught:
            wait(deferrable=True, **arguments)
        return caught.value

    def test_what_is_met_at_once_needs_no_triggerer(self, bank: Sandbox) -> None:
        assert wait(deferrable=True) is None

    def test_it_goes_on_in_the_triggerer(self, bank: Sandbox) -> None:
        query = {"correlation_ids": "nosuch"}
        deferral = self.deferral(query=query, poke_interval=7, timeout=100)
        assert isinstance(deferral.trigger, IntergiroSensorTrigger)
        assert deferral.trigger.serialize()[1] == {
            "endpoint": "transactions", "response_check": HAS_RECORDS, "query": query, "poke_interval": 7.0,
            "intergiro_conn_id": "intergiro_default",
        }  # fmt: skip
        assert deferral.timeout == timedelta(seconds=100)
        assert deferral.method_name == "execute_complete"

    def test_after_a_transient_error_the_triggerer_waits(self, bank: Sandbox, one_attempt: None) -> None:
        bank.fault("status", path="/v3/transactions", status=503, times=1)
        self.deferral()

    def test_a_final_error_defers_nothing(self, bank: Sandbox) -> None:
        bank.fault("status", path="/v3/transactions", status=403)
        with pytest.raises(IntergiroForbidden):
            wait(deferrable=True)
        with pytest.raises(AirflowSkipException):
            wait(deferrable=True, soft_fail=True)

    def test_a_check_that_wants_what_the_triggerer_has_not_fails_at_once(self, bank: Sandbox) -> None:
        with pytest.raises(IntergiroError, match=r"`response_check` \(wants_context\) raised TypeError"):
            wait({"ti": object()}, deferrable=True, response_check="tests.integration.triggers.checks.wants_context")

    def test_its_end(self) -> None:
        made = sensor(deferrable=True)
        assert made.execute_complete({}, json.loads(json.dumps(SUCCESS))) is None  # type: ignore[typeddict-item, func-returns-value]

    @pytest.mark.parametrize("soft_fail", [False, True])
    @pytest.mark.parametrize(
        ("event", "error"),
        [(error_event(IntergiroNotFound(404)), IntergiroNotFound), ({"status": "?"}, IntergiroError)],
    )
    def test_its_end_with_an_error(self, event: dict[str, Any], error: type[Exception], soft_fail: bool) -> None:
        made = sensor(deferrable=True, soft_fail=soft_fail)
        with pytest.raises(AirflowSkipException if soft_fail else error):
            made.resume_execution("execute_complete", {"event": event}, {})  # type: ignore[typeddict-item]
