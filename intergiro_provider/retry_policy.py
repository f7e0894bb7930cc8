# SPDX-License-Identifier: Apache-2.0
"""When Airflow tries a task again: from Airflow 3.3 on when the bank, or the budget of logins, allows it.

Older versions wait as the task's ``retry_delay`` says. Final errors need no policy: Airflow never retries those.
A light module: every parse of a DAG file makes a policy for each of our tasks, and hardly any is ever asked.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.definitions.retry_policy import RetryDecision

LONGEST_WAIT = 24 * 3600.0
"""Seconds, the most that an answer of the bank may put a retry off."""

_NO_POLICIES = object()


def wait_as_told(operator: BaseOperator) -> None:
    """Give an operator the policy below, unless its user has chosen one, or Airflow (before 3.3) knows none."""
    if getattr(operator, "retry_policy", _NO_POLICIES) is None:
        operator.retry_policy = IntergiroRetryPolicy()  # type: ignore[assignment]


class IntergiroRetryPolicy:
    """Wait as `retry_after` or `next_at` of the error says; where it says nothing, as the task does."""

    # Not derived from Airflow's RetryPolicy: workers only call `evaluate`, and importing that module costs each parse
    # of a DAG file about as much as both operators.

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Decide about the retry after this error."""
        from airflow.sdk.definitions.retry_policy import RetryDecision

        from intergiro_provider.exceptions import wait_asked_for

        seconds = wait_asked_for(exception)
        if not seconds:
            return RetryDecision.default()
        delay = timedelta(seconds=min(seconds, LONGEST_WAIT))
        return RetryDecision.retry(delay, f"{type(exception).__name__} allows another try in {seconds:.0f} s")
