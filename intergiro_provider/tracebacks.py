# SPDX-License-Identifier: Apache-2.0
"""What a task's log shows of our errors: the message, which says what to do. The frames are there at DEBUG."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

from intergiro_provider.exceptions import IntergiroError

F = TypeVar("F", bound=Callable[..., Any])


FILE = "<intergiro>"
"""What stands for this file in a traceback."""


def message_only(method: F) -> F:
    """Decorate `execute`, `poke` or `execute_complete`: an :class:`IntergiroError` leaves it without our frames.

    Airflow's UI shows an error's frames below its message, and the end of the log first: forty of them hide it. What
    is left are Airflow's own, and a last one whose name is the message. Errors of other classes keep their
    frames, and so does the cause of an error that comes from the author's own function, such as a `response_check`.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        result, failure = _attempt(method, self, args, kwargs)
        return result if failure is None else _named(_raise, f"{type(failure).__name__}: {failure}")(failure)

    named: F = _named(wrapper, method.__name__)
    return named


def _attempt(method: Callable[..., Any], self: Any, args: Any, kwargs: Any) -> tuple[Any, IntergiroError | None]:
    """Return the result, or the error of ours without its traceback."""
    try:
        return method(self, *args, **kwargs), None
    except IntergiroError as error:
        self.log.debug("Where %s was raised:", type(error).__name__, exc_info=True)
        failure = error.with_traceback(None)
    failure.__cause__, failure.__context__ = (failure.__cause__ if failure.shows_cause else None), None
    return None, failure


def _raise(failure: IntergiroError) -> None:
    raise failure


def _named(function: Any, name: str) -> Any:
    """Return the function with another name and file in tracebacks."""
    code = function.__code__.replace(co_filename=FILE, co_name=name)
    made = types.FunctionType(code, function.__globals__, closure=function.__closure__)
    return functools.update_wrapper(made, function)
