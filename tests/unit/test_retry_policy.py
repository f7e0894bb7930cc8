# SPDX-License-Identifier: Apache-2.0
"""The delay of a retry: what the bank or the limit of logins says, on an Airflow with retry policies."""

from __future__ import annotations

import importlib.util
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intergiro_provider import retry_policy as module
from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroError,
    IntergiroRateLimited,
    LoginBudgetExhausted,
    StoreUnavailable,
)
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

HAS_POLICIES = (
    importlib.util.find_spec("airflow.sdk") is not None
    and importlib.util.find_spec("airflow.sdk.definitions.retry_policy") is not None
)
has_policies = pytest.mark.skipif(not HAS_POLICIES, reason="retry policies are Airflow 3.3's")


def operators(**arguments: Any) -> list[Any]:
    return [
        IntergiroOperator(task_id="call", endpoint="accounts", **arguments),
        IntergiroToObjectStorageOperator(task_id="pull", endpoint="accounts", path="file:///x", **arguments),
    ]


@pytest.mark.skipif(HAS_POLICIES, reason="older versions have none")
def test_older_versions_wait_as_the_task_says() -> None:
    assert not any(hasattr(operator, "retry_policy") for operator in operators())
    assert all(operator.retry_delay == timedelta(minutes=2) for operator in operators(retry_delay=timedelta(minutes=2)))


def decision(error: BaseException) -> Any:
    return operators()[0].retry_policy.evaluate(error, try_number=1, max_tries=3)


@has_policies
def test_every_operator_has_it_unless_its_user_has_chosen_one() -> None:
    from airflow.sdk import ExceptionRetryPolicy

    assert all(type(operator.retry_policy) is module.IntergiroRetryPolicy for operator in operators())
    theirs = ExceptionRetryPolicy(rules=[])
    assert all(operator.retry_policy is theirs for operator in operators(retry_policy=theirs))
    assert all(operator.retry_policy is theirs for operator in operators(default_args={"retry_policy": theirs}))


@has_policies
@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (IntergiroRateLimited(429, retry_after=90.0), 90),
        (BankUnavailable("away", 12.5), 12.5),
        (LoginBudgetExhausted(datetime.now(UTC) + timedelta(minutes=40)), 2400),
        (IntergiroRateLimited(429, retry_after=1e9), 86400),
    ],
)
def test_a_retry_waits_as_told(error: IntergiroError, seconds: float) -> None:
    from airflow.sdk import RetryAction

    if isinstance(error, LoginBudgetExhausted):  # computed at the collection of the tests, maybe minutes ago
        error = LoginBudgetExhausted(datetime.now(UTC) + timedelta(seconds=seconds))
    found = decision(error)
    assert found.action is RetryAction.RETRY
    assert seconds - 60 < found.retry_delay.total_seconds() <= seconds
    assert type(error).__name__ in found.reason


@has_policies
@pytest.mark.parametrize(
    "error",
    [
        IntergiroRateLimited(429), BankUnavailable(), StoreUnavailable("away"), KeyError("x"), KeyboardInterrupt(),
        LoginBudgetExhausted(datetime.now(UTC) - timedelta(minutes=1)), IntergiroRateLimited(429, retry_after=0.0),
    ],
)  # fmt: skip
def test_else_as_the_task_does(error: BaseException) -> None:
    from airflow.sdk import RetryAction

    found = decision(error)
    assert (found.action, found.retry_delay) == (RetryAction.DEFAULT, None)


@has_policies
def test_it_is_called_as_airflows_own_are() -> None:
    from airflow.sdk import RetryPolicy

    ours, theirs = (
        [(each.name, each.kind, each.default) for each in inspect.signature(evaluate).parameters.values()]
        for evaluate in (module.IntergiroRetryPolicy.evaluate, RetryPolicy.evaluate)
    )
    assert ours == theirs


@has_policies
def test_the_dag_can_be_serialised_and_tells_that_there_is_a_policy() -> None:
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None) as dag:
        operators()
    tasks = DagSerialization.to_dict(dag)["dag"]["tasks"]
    assert [each["__var"]["has_retry_policy"] for each in tasks] == [True, True]
