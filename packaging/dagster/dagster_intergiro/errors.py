# SPDX-License-Identifier: Apache-2.0
"""Convert errors for Dagster: it does not retry final ones, and retries transient ones when the bank allows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from dagster import AssetExecutionContext, Failure, OpExecutionContext, RetryRequested

from dagster_intergiro import internals
from intergiro_provider.exceptions import IntergiroError, is_final, seconds_to_wait

LONGEST_WAIT = 900.0
"""The longest wait of a step for its retry, in seconds; the step occupies its process during the wait."""
RETRIES = 3
"""Of a step without a retry policy."""
PAUSE = 30.0
"""Seconds before its first retry, where the bank asks for nothing; twice as long before each further one."""


@contextmanager
def dagster_errors(context: AssetExecutionContext | OpExecutionContext) -> Iterator[None]:
    """Raise errors of this package as Dagster's events.

    :raises Failure: for a final error, and if the bank asks for a wait of more than 15 minutes.
        Dagster does not retry the step, whatever its retry policy is.
    :raises RetryRequested: for a transient error. The step's retry policy says how often and when; the step waits at
        least as long as the bank asks for.
    """
    try:
        yield
    except IntergiroError as error:
        wait = seconds_to_wait(error)
        if is_final(error):
            raise Failure(str(error), allow_retries=False) from error
        if wait > LONGEST_WAIT:
            at = datetime.now(UTC) + timedelta(seconds=wait)
            raise Failure(
                f"{error} The step is not retried before that: run it again from {at:%Y-%m-%d %H:%M:%S} UTC.",
                allow_retries=False,
            ) from error
        attempt = context.retry_number
        retries, pause = internals.retries_of(context, attempt + 1) or (RETRIES, PAUSE * 2**attempt)
        context.log.warning("%s", error)
        raise RetryRequested(retries, max(wait, min(pause, LONGEST_WAIT))) from error
