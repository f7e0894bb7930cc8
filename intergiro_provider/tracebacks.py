# SPDX-License-Identifier: Apache-2.0
"""What a task's log shows of our errors: the message, which says what to do. The frames are there at DEBUG."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from intergiro_provider.exceptions import IntergiroError

F = TypeVar("F", bound=Callable[..., Any])


def message_only(method: F) -> F:
    """Decorate `execute`, `poke` or `execute_complete`: an :class:`IntergiroError` leaves it without our frames.

    Airflow's UI shows an error's frames below its message, and the end of the log first: forty of them hide it. Errors
    of other classes, such as one of a `response_check`, keep their frames.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except IntergiroError as error:
            self.log.debug("Where %s was raised:", type(error).__name__, exc_info=True)
            failure = error
        failure.__context__ = None
        raise failure.with_traceback(None) from None

    return wrapper  # type: ignore[return-value]
