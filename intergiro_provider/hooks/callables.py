# SPDX-License-Identifier: Apache-2.0
"""`response_check` and `response_filter`: call these functions, and find them by import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError

if TYPE_CHECKING:
    import requests


def call(argument: str, function: Callable[..., Any], response: requests.Response, context: Mapping[str, Any]) -> Any:
    """Call a function with the response, and with the names of Airflow's context that it takes.

    :param argument: the operator's argument that holds the function.
    :raises IntergiroError: the function raised an exception, which is the cause. Airflow's own errors are not wrapped.
    """
    try:  # common.compat has it too, but not for long
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

    try:
        return function(response, **determine_kwargs(function, [response], context))
    except AirflowException:
        raise
    except Exception as error:  # its text may quote the response
        name = getattr(function, "__name__", type(function).__name__)
        failure = IntergiroError(f"`{argument}` ({name}) raised {type(error).__name__}; its own error shows where")
        failure.shows_cause = True
        raise failure from error


def imported(path: str) -> Callable[..., Any]:
    """Return the function with this import path.

    :raises IntergiroValueError: it cannot be imported here, or cannot be called.
    """
    module, _, name = path.rpartition(".")
    importlib.invalidate_caches()  # a folder that is younger than this process counts as missing until then
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module raises while it is imported
        raise IntergiroValueError(
            f"`response_check` is {path!r}, which cannot be imported here ({type(error).__name__}: {error}). Put it "
            "where workers and triggerer find it: in an installed package, the plugins folder or the PYTHONPATH. In "
            "Airflow 3 the triggerer does not look into the DAGs folder. If the function is there, restart the "
            "triggerer and the workers: they keep a module as it was when they imported it"
        ) from error
    if not callable(function):
        raise IntergiroValueError(f"`response_check` is {path!r}, which is no function")
    return function  # type: ignore[no-any-return]
