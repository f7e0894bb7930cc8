# SPDX-License-Identifier: Apache-2.0
"""The retry policy of our tasks: since Airflow 3.3, a retry waits as long as the bank or the limit of logins says.

Older versions use the task's ``retry_delay``. Final errors need no policy: Airflow does not retry them. Each parse of a
DAG file imports this module, so it is light.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from intergiro_provider.exceptions import seconds_to_wait

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.definitions.retry_policy import RetryDecision

LONGEST_WAIT = 24 * 3600.0
"""The longest delay that the bank can ask for, in seconds."""

_NO_POLICIES = object()


def set_retry_policy(operator: BaseOperator) -> None:
    """Set the policy on an operator, unless the operator has one, or Airflow has no retry policies (before 3.3)."""
    if getattr(operator, "retry_policy", _NO_POLICIES) is None:
        operator.retry_policy = IntergiroRetryPolicy()  # type: ignore[assignment]


class IntergiroRetryPolicy:
    """Wait until `retry_after` or `next_at` of the error. If the error has neither, the task's settings apply."""

    # Not derived from Airflow's RetryPolicy: a worker only calls `evaluate`, and an import of that module costs each
    # parse of a DAG file about as much as both operators.

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """Return the decision about a retry after this error."""
        from airflow.sdk.definitions.retry_policy import RetryDecision

        seconds = seconds_to_wait(exception)
        if not seconds:
            return RetryDecision.default()
        delay = timedelta(seconds=min(seconds, LONGEST_WAIT))
        return RetryDecision.retry(delay, f"{type(exception).__name__} allows another attempt in {seconds:.0f} s")
