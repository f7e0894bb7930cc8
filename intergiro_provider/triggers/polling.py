# SPDX-License-Identifier: Apache-2.0
"""How a trigger sends requests: in a thread, once per poll, and after an error with a growing delay."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from intergiro_provider.exceptions import seconds_to_wait

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

THREADS = 16
"""The largest number of simultaneous requests of one connection in one triggerer."""
FIRST_DELAY = 5.0
"""Seconds after the first error. The delay doubles with each further error."""
LONGEST_DELAY = 300.0
"""The largest delay, in seconds, if the error names none."""
LONGEST_RETRY_AFTER = 3600.0
"""The largest delay, in seconds, that the bank or the limit of logins can ask for."""


@functools.cache
def _threads(conn_id: str) -> ThreadPoolExecutor:
    # One pool per connection, because a bank that hangs keeps all threads of a pool busy.
    return ThreadPoolExecutor(THREADS, thread_name_prefix="intergiro-trigger")


async def in_thread(conn_id: str, work: Callable[[], T]) -> T:
    """Call `work` in a thread of the connection's pool, with the context of the trigger, for its logs.

    If the trigger is cancelled, the thread continues to its end, and so does a renewal of the session in it.
    """
    from intergiro_provider.session.triggerer_loop import work_for

    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    def run() -> T:
        work_for(loop)
        return context.run(work)

    return await loop.run_in_executor(_threads(conn_id), run)


def get(conn_id: str, endpoint: str, query: Mapping[str, Any] | None) -> requests.Response:
    """Send one GET, with a new hook: a trigger runs for days, and its connection can change meanwhile.

    :raises IntergiroError: as in :meth:`~intergiro_provider.hooks.intergiro.IntergiroHook.run`.
    """
    from intergiro_provider.hooks.intergiro import IntergiroHook

    hook = IntergiroHook(intergiro_conn_id=conn_id, method="GET")
    with contextlib.closing(hook.get_conn()):
        return hook.run(endpoint, params=query, extra_options={"retry": False})


def delay_after(errors: int, error: BaseException) -> float:
    """Return the seconds to wait after an error.

    :param errors: the number of errors in a row, with this one.
    """
    backoff: float = min(FIRST_DELAY * 2.0 ** min(errors - 1, 30), LONGEST_DELAY)
    return max(backoff, min(seconds_to_wait(error), LONGEST_RETRY_AFTER)) * random.uniform(1.0, 1.2)  # noqa: S311
