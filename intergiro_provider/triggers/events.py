# SPDX-License-Identifier: Apache-2.0
"""The events of the sensor's trigger: the end of the wait, or an error. They hold no account data.

Airflow stores events unencrypted, in its database and its logs. So the event of an error holds only its class, its
message, which has no account data, and its attributes that are numbers or look like ids.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from intergiro_provider import exceptions
from intergiro_provider.exceptions import IntergiroError

SUCCESS = {"status": "success"}
_AIRFLOW_ERRORS = {kind.__name__: kind for kind in (AirflowFailException, AirflowSkipException)}
_DETAILS = ("status_code", "request_id", "retry_after", "consent_id", "scope", "expires_at")


def is_final(error: BaseException) -> bool:
    """Return whether a retry cannot help."""
    return isinstance(error, AirflowFailException)


def check_failed_event(error: BaseException, path: str) -> dict[str, Any]:
    """Return the event of a check that raised an exception. Airflow's exceptions, to fail or skip the task, are kept.

    :param path: the import path of the check.
    """
    # Without the text of the error, which can quote the response.
    kind = next((name for name, each in _AIRFLOW_ERRORS.items() if isinstance(error, each)), IntergiroError.__name__)
    message = f"`response_check` ({path}) raised {type(error).__name__}. The traceback is in the log of the trigger."
    return {"status": "error", "error": kind, "message": message}


def error_event(error: Exception) -> dict[str, Any]:
    """Return the event for an error that ends the wait."""
    return {
        "status": "error",
        "error": type(error).__name__,
        "message": str(error),
        "details": {
            name: value if _may_be_shown(value) else None for name, value in vars(error).items() if name in _DETAILS
        },
    }


def read_event(event: Any) -> None:
    """Return if the event is a success.

    :raises AirflowException: the error of the event, with the class that it had in the trigger.
    :raises IntergiroError: the event is unknown.
    """
    if event == SUCCESS:
        return
    if isinstance(event, dict) and event.get("status") == "error" and isinstance(event.get("message"), str):
        name = str(event.get("error"))
        if name in _AIRFLOW_ERRORS:
            raise _AIRFLOW_ERRORS[name](event["message"])
        kind = getattr(exceptions, name, None)
        if isinstance(kind, type) and issubclass(kind, IntergiroError):
            details = event.get("details") or {}
            attributes = {name: details[name] for name in _DETAILS if name in details}
            if issubclass(kind, exceptions.IntergiroApiError):
                attributes["errors"] = []  # the bank's text stays in the triggerer
            raise exceptions.rebuild(kind, (event["message"],), attributes)
    raise IntergiroError(
        "The trigger has sent an event that this version does not understand. Install the same version of "
        "airflow-provider-intergiro on the workers and in the triggerer."
    )


def _may_be_shown(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_may_be_shown, value))
    if isinstance(value, str):
        return exceptions.looks_like_an_id(value)
    return value is None or isinstance(value, (int, float))
