# SPDX-License-Identifier: Apache-2.0
"""The retry policy of our tasks: on Airflow 3.3 and later, a retry waits as long as the bank or the login budget says.

Older versions use the task's ``retry_delay``. Final errors need no policy, because Airflow never retries them. The
module is light: every parse of a DAG file creates a policy for each of our tasks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.definitions.retry_policy import RetryDecision

LONGEST_WAIT = 24 * 3600.0
"""Longest delay of a retry that a response of the bank can ask for, in seconds."""

_NO_POLICIES = object()


def wait_as_told(operator: BaseOperator) -> None:
    """Set the policy below on an operator, unless it has one, or Airflow (before 3.3) has no policies."""
    if getattr(operator, "retry_policy", _NO_POLICIES) is None:
        operator.retry_policy = IntergiroRetryPolicy()  # type: ignore[assignment]


class IntergiroRetryPolicy:
    """Wait until `retry_after` or `next_at` of the error, or as the task says if the error has neither."""

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
