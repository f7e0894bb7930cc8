# SPDX-License-Identifier: Apache-2.0
"""The waits of a trigger after errors, and the threads of its polls."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from intergiro_provider.exceptions import BankUnavailable, IntergiroError, IntergiroRateLimited, LoginBudgetExhausted
from intergiro_provider.triggers import polling
from intergiro_provider.triggers.polling import FIRST_DELAY, LONGEST_DELAY, LONGEST_RETRY_AFTER, delay_after, in_thread

JITTER = 1.2


def test_pauses_grow_to_a_bound() -> None:
    pauses = [delay_after(errors, IntergiroError()) for errors in range(1, 2000)]
    assert FIRST_DELAY <= pauses[0] <= FIRST_DELAY * JITTER
    assert all(former * 2 <= later * JITTER for former, later in itertools.pairwise(pauses[:6]))
    assert all(LONGEST_DELAY <= seconds <= LONGEST_DELAY * JITTER for seconds in pauses[10:])


@pytest.mark.parametrize(
    "error_of",
    [
        lambda seconds: IntergiroRateLimited(429, retry_after=seconds),
        lambda seconds: BankUnavailable("away", seconds),
        lambda seconds: LoginBudgetExhausted(datetime.now(UTC) + timedelta(seconds=seconds)),
    ],
)
def test_it_waits_as_told(error_of: Callable[[float], IntergiroError]) -> None:
    error = error_of(3000.0)
    assert 2400 <= delay_after(1, error) <= 3000 * JITTER
    assert 2400 <= delay_after(20, error) <= 3000 * JITTER


@pytest.mark.parametrize(
    "error",
    [IntergiroRateLimited(429, retry_after=1e9), LoginBudgetExhausted(datetime.now(UTC) + timedelta(days=365))],
)
def test_but_not_for_ever(error: IntergiroError) -> None:
    assert delay_after(1, error) <= LONGEST_RETRY_AFTER * JITTER


@pytest.mark.parametrize(
    "error",
    [
        IntergiroRateLimited(429, retry_after=0.0),
        BankUnavailable(),
        LoginBudgetExhausted(datetime.now(UTC) - timedelta(days=1)),
        KeyError("retry_after"),
    ],
)
def test_what_asks_for_no_wait_is_not_asked_again_at_once(error: Exception) -> None:
    assert delay_after(1, error) >= FIRST_DELAY


def test_threads_have_the_context_of_the_trigger_and_leave_the_loop_free() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("trigger")

    async def trigger() -> None:
        variable.set("mine")
        released = threading.Event()

        def wait() -> tuple[str, int]:
            assert released.wait(60)
            return variable.get(), threading.get_ident()

        waiting = asyncio.create_task(in_thread("bank", wait))
        await asyncio.sleep(0)
        released.set()  # this would be impossible if the loop were blocked
        context, thread = await waiting
        assert context == "mine"
        assert thread != threading.get_ident()

    asyncio.run(trigger())


def test_a_bank_that_hangs_keeps_no_thread_of_other_triggers() -> None:
    released = threading.Event()

    async def triggers() -> None:
        ours = [asyncio.create_task(in_thread("bank", lambda: released.wait(60))) for _ in range(polling.THREADS + 50)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "others go on"), 30)
        assert await asyncio.wait_for(in_thread("other bank", lambda: "and those of another bank"), 30)
        assert not any(task.done() for task in ours)
        released.set()
        assert all(await asyncio.gather(*ours))

    asyncio.run(triggers())
