# SPDX-License-Identifier: Apache-2.0
"""Functions of the DAG's author that judge or filter a response: how they are called, and found by import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from intergiro_provider.exceptions import IntergiroValueError

if TYPE_CHECKING:
    import requests


def call(function: Callable[..., Any], response: requests.Response, context: Mapping[str, Any]) -> Any:
    """Call it with the response, and with the names of Airflow's context that it asks for."""
    try:  # common.compat has it too, but not for long
        from airflow.sdk.bases.decorator import determine_kwargs
    except ImportError:
        from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

    return function(response, **determine_kwargs(function, [response], context))


def imported(path: str) -> Callable[..., Any]:
    """The function with this import path.

    :raises IntergiroValueError: it cannot be imported here, or cannot be called.
    """
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise IntergiroValueError(
            f"`response_check` is {path!r}, which cannot be imported here ({type(error).__name__}): it has to be where "
            "workers and triggerer find it: an installed package, the plugins folder, the PYTHONPATH. In Airflow 3 "
            "the triggerer does not look into the DAGs folder"
        ) from error
    if not callable(function):
        raise IntergiroValueError(f"`response_check` is {path!r}, which is no function")
    return function  # type: ignore[no-any-return]
