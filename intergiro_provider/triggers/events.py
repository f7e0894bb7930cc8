# SPDX-License-Identifier: Apache-2.0
"""What a sensor's trigger tells its task: the end of the wait, or an error, and nothing of anybody's account.

Airflow keeps events in clear text, in its database and its logs. Of an error go over: its class, its message, which
holds no account data, and those of its attributes that are numbers or look like ids.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from intergiro_provider import exceptions
from intergiro_provider.exceptions import IntergiroError

SUCCESS = {"status": "success"}
_OF_AIRFLOW = {kind.__name__: kind for kind in (AirflowFailException, AirflowSkipException)}
_DETAILS = ("status_code", "request_id", "retry_after", "consent_id", "scope", "expires_at")


def is_final(error: BaseException) -> bool:
    """Whether trying again cannot help."""
    return isinstance(error, AirflowFailException)


def check_failed_event(error: BaseException, path: str) -> dict[str, Any]:
    """The event of a check that raised something: what a check may want is kept, to fail at once or to be skipped.

    :param path: the check's import path. The error's text is left out: it may quote what the bank answered.
    """
    kind = next((name for name, each in _OF_AIRFLOW.items() if isinstance(error, each)), IntergiroError.__name__)
    message = f"`response_check` ({path}) raised {type(error).__name__}; the trigger's log says where and why."
    return {"status": "error", "error": kind, "message": message}


def error_event(error: Exception) -> dict[str, Any]:
    """The event that says why the wait is over."""
    return {
        "status": "error",
        "error": type(error).__name__,
        "message": str(error),
        "details": {
            name: value if _may_be_shown(value) else None for name, value in vars(error).items() if name in _DETAILS
        },
    }


def read_event(event: Any) -> None:
    """Return if the wait has ended well.

    :raises AirflowException: the error of the event, of the same class as in the trigger.
    :raises IntergiroError: this is no such event.
    """
    if event == SUCCESS:
        return
    if isinstance(event, dict) and event.get("status") == "error" and isinstance(event.get("message"), str):
        name = str(event.get("error"))
        if name in _OF_AIRFLOW:
            raise _OF_AIRFLOW[name](event["message"])
        kind = getattr(exceptions, name, None)
        if isinstance(kind, type) and issubclass(kind, IntergiroError):
            details = event.get("details") or {}
            attributes = {name: details[name] for name in _DETAILS if name in details}
            if issubclass(kind, exceptions.IntergiroApiError):
                attributes["errors"] = []  # the bank's own words stay where they were read
            raise exceptions.rebuild(kind, (event["message"],), attributes)
    raise IntergiroError(
        "The trigger has sent an event that this version does not understand: workers and triggerer need the same "
        "version of airflow-provider-intergiro."
    )


def _may_be_shown(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_may_be_shown, value))
    if isinstance(value, str):
        return exceptions.looks_like_an_id(value)
    return value is None or isinstance(value, (int, float))
