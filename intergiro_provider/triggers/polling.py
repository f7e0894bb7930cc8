# SPDX-License-Identifier: Apache-2.0
"""How a trigger asks the bank: in a thread, once each time, and after an error only when some time has passed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from intergiro_provider.exceptions import wait_asked_for

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

THREADS = 16
"""Requests that the triggers of one connection may have under way at once in one triggerer."""
FIRST_PAUSE = 5.0
"""Seconds after a first error; they double with each further one."""
LONGEST_PAUSE = 300.0
"""Seconds, the most that errors alone add up to."""
LONGEST_WISH = 3600.0
"""Seconds, the most that is waited because the bank or the budget of logins asked for it."""


@functools.cache
def _threads(conn_id: str) -> ThreadPoolExecutor:
    # Not asyncio's own, and one for each connection: a bank that hangs keeps all threads of its pool busy.
    return ThreadPoolExecutor(THREADS, thread_name_prefix="intergiro-trigger")


async def in_thread(conn_id: str, work: Callable[[], T]) -> T:
    """Run it in a thread of the connection's pool, with the context of the trigger for its logs.

    Where the trigger is cancelled, the thread goes on to its end, and so does a renewal of the session in it.
    """
    from intergiro_provider.session.triggerer_loop import work_for

    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    def run() -> T:
        work_for(loop)
        return context.run(work)

    return await loop.run_in_executor(_threads(conn_id), run)


def ask(conn_id: str, endpoint: str, query: Mapping[str, Any] | None) -> requests.Response:
    """Make one GET, with a hook of its own: a trigger lives for days, and its connection may change meanwhile.

    :raises IntergiroError: as :meth:`~intergiro_provider.hooks.intergiro.IntergiroHook.run`.
    """
    from intergiro_provider.hooks.intergiro import IntergiroHook

    hook = IntergiroHook(intergiro_conn_id=conn_id, method="GET")
    with contextlib.closing(hook.get_conn()):
        return hook.run(endpoint, params=query, extra_options={"retry": False})


def pause(errors: int, error: BaseException) -> float:
    """Seconds to wait after an error.

    :param errors: how many there have been in a row, this one included.
    """
    own: float = min(FIRST_PAUSE * 2.0 ** min(errors - 1, 30), LONGEST_PAUSE)
    return max(own, min(wait_asked_for(error), LONGEST_WISH)) * random.uniform(1.0, 1.2)  # noqa: S311
