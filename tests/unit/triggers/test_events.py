# SPDX-License-Identifier: Apache-2.0
"""The events of a sensor's trigger, and how the task handles them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from intergiro_provider.exceptions import (
    IntergiroAuthError,
    IntergiroConsentRequired,
    IntergiroError,
    IntergiroForbidden,
    IntergiroNotFound,
    IntergiroValidationError,
    IntergiroValueError,
    ShadowedError,
)
from intergiro_provider.triggers.events import SUCCESS, check_failed_event, error_event, is_final, read_event

ACCOUNT_DATA = "Åsa Öberg, SE45 5000 0000 0583 9825 7466"

FINAL = [
    IntergiroValueError("wrong"),
    IntergiroAuthError("refused"),
    ShadowedError("hidden"),
    IntergiroForbidden(403, request_id="r-1"),
    IntergiroNotFound(404),
    IntergiroValidationError(422, [{"code": "c", "field": "f", "message": ACCOUNT_DATA}], request_id="r-2"),
    IntergiroConsentRequired("c-1", ["read_history"], "2026-01-01T00:00:00Z", request_id="r-3"),
]


def told(event: dict[str, Any]) -> Exception:
    """Return the error that the task raises, after the event was stored in Airflow's database."""
    with pytest.raises(Exception) as caught:
        read_event(json.loads(json.dumps(event)))
    return caught.value


def test_success() -> None:
    read_event(json.loads(json.dumps(SUCCESS)))


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_as_it_went_in(error: IntergiroError) -> None:
    found = told(error_event(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert is_final(found)
    for name, value in vars(error).items():
        assert getattr(found, name) == ([] if name == "errors" else value)


@pytest.mark.parametrize(
    "error",
    [
        FINAL[5],
        IntergiroConsentRequired(ACCOUNT_DATA, [ACCOUNT_DATA], ACCOUNT_DATA, request_id=ACCOUNT_DATA),
        IntergiroNotFound(404, request_id=ACCOUNT_DATA),
    ],
)
def test_nothing_that_somebody_wrote_is_in_an_event(error: IntergiroError) -> None:
    event = error_event(error)
    assert "Öberg" not in json.dumps(event, ensure_ascii=False)
    assert type(told(event)) is type(error)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (AirflowFailException(ACCOUNT_DATA), AirflowFailException),
        (IntergiroNotFound(404), AirflowFailException),
        (AirflowSkipException(ACCOUNT_DATA), AirflowSkipException),
        (KeyError(ACCOUNT_DATA), IntergiroError),
    ],
)
def test_a_check_that_raises(raised: Exception, expected: type[Exception]) -> None:
    event = check_failed_event(raised, "my_checks.is_booked")
    assert "Öberg" not in json.dumps(event, ensure_ascii=False)
    error = told(event)
    assert type(error) is expected
    assert "my_checks.is_booked" in str(error)
    assert type(raised).__name__ in str(error)


@pytest.mark.parametrize(
    "event",
    [
        None, True, "success", {}, {"status": "done"}, {"status": "success", "more": 1}, {"status": "error"},
        {"status": "error", "error": "KeyError", "message": "m"}, {"status": "error", "error": 3, "message": "m"},
        {"status": "error", "error": "rebuild", "message": "m"},
        {"status": "error", "error": "IntergiroNotFound", "message": 4},
    ],
)  # fmt: skip
def test_what_is_no_event_of_ours_fails_the_task(event: Any) -> None:
    with pytest.raises(IntergiroError, match="does not understand") as caught:
        read_event(event)
    assert not is_final(caught.value)
