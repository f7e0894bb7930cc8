# SPDX-License-Identifier: Apache-2.0
"""Shorten the tracebacks of our errors in a task's log to the message. The log at level DEBUG has all frames."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar

from intergiro_provider.exceptions import IntergiroError

F = TypeVar("F", bound=Callable[..., Any])


FILE = "<intergiro>"
"""The file name in the last frame of a shortened traceback."""


def message_only(method: F) -> F:
    """Decorate `execute`, `poke` or `execute_complete`: remove our frames from an :class:`IntergiroError`.

    Airflow's UI shows the end of a log first, and the frames of an error below its message. Forty frames hide the
    message. What remains are Airflow's frames, and a last frame whose name is the message. Other errors keep their
    frames. So does the cause of an error in a function of the DAG's author, such as a `response_check`.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        result, failure = _attempt(method, self, args, kwargs)
        return result if failure is None else _named(_raise, f"{type(failure).__name__}: {failure}")(failure)

    named: F = _named(wrapper, method.__name__)
    return named


def _attempt(method: Callable[..., Any], self: Any, args: Any, kwargs: Any) -> tuple[Any, IntergiroError | None]:
    """Return the result, or our error without its traceback."""
    try:
        return method(self, *args, **kwargs), None
    except IntergiroError as error:
        self.log.debug("The traceback of %s:", type(error).__name__, exc_info=True)
        failure = error.with_traceback(None)
    failure.__cause__, failure.__context__ = (failure.__cause__ if failure.shows_cause else None), None
    return None, failure


def _raise(failure: IntergiroError) -> None:
    raise failure


def _named(function: Any, name: str) -> Any:
    """Return the function with another name and another file in tracebacks."""
    code = function.__code__.replace(co_filename=FILE, co_name=name)
    made = types.FunctionType(code, function.__globals__, closure=function.__closure__)
    return functools.update_wrapper(made, function)
