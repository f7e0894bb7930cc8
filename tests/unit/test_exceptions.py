# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from intergiro_provider import exceptions as x

RETRIABLE = [
    x.IntergiroApiError(503),
    x.IntergiroServerError(500, request_id="r-1"),
    x.IntergiroRateLimited(429, retry_after=7.0),
    x.IntergiroRequestTimeout(408),
    x.IntergiroResponseError("not a page"),
    x.UnreadableResponse("not JSON"),
    x.LoginBudgetExhausted(datetime(2026, 1, 1, tzinfo=UTC), "wait"),
    x.StoreUnavailable("database down"),
    x.StorageError("`path`: writing /lake failed: No space left on device"),
    x.BankUnavailable("bank down", retry_after=30.0),
    x.LoadError("transactions: merging failed: UniqueViolation"),
    x.LockMismatch("another lock"),
]
FINAL = [
    x.BalanceMismatch("1 of 7 balances do not agree"),
    x.IntergiroClientError(409),
    x.IntergiroValidationError(400, [{"code": "invalid", "field": "limit", "message": "too large"}]),
    x.IntergiroForbidden(403),
    x.IntergiroNotFound(404),
    x.IntergiroConsentRequired("c-1", ["make_payment"], "2026-01-01T00:00:00.000Z"),
    x.IntergiroAuthError("wrong key"),
    x.IntergiroValueError("`limit` is 0"),
    x.ShadowedError("hidden"),
    x.OutcomeUnknown("POST /v1/bulk_payments", "no response (ReadTimeout)", "Look.", key="k-1", status_code=None),
    x.PaymentRejected("payment p-1 was rejected", "p-1"),
    x.PaymentMismatch("payment p-1 differs from the request in `amount`", "p-1"),
]


@pytest.mark.parametrize("error", RETRIABLE + FINAL, ids=lambda e: type(e).__name__)
def test_every_error_is_an_intergiro_error_and_an_airflow_error(error: Exception) -> None:
    assert isinstance(error, x.IntergiroError)
    assert isinstance(error, AirflowException)


@pytest.mark.parametrize("error", RETRIABLE, ids=lambda e: type(e).__name__)
def test_airflow_retries_what_may_pass(error: Exception) -> None:
    assert not isinstance(error, AirflowFailException)


@pytest.mark.parametrize("error", FINAL, ids=lambda e: type(e).__name__)
def test_airflow_does_not_retry_what_cannot_pass(error: Exception) -> None:
    assert isinstance(error, AirflowFailException)


@pytest.mark.parametrize("error", RETRIABLE + FINAL, ids=lambda e: type(e).__name__)
def test_errors_survive_the_way_between_processes(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_exported_error_was_looked_at_here() -> None:
    seen = {type(e).__name__ for e in RETRIABLE + FINAL} | {"IntergiroError"}

    assert seen == set(x.__all__)


def test_the_banks_free_text_is_kept_for_code_but_not_printed() -> None:
    errors = [{"code": "invalid_iban", "field": "counterparty.iban", "message": "GB33BUKB20201555555555 is not valid"}]
    error = x.IntergiroValidationError(400, errors, "req-1", said="code invalid_iban")

    assert error.errors == errors
    for text in (str(error), repr(error)):
        assert "GB33" not in text
        assert "[code invalid_iban]" in text
        assert "req-1" in text


def test_a_consent_says_what_to_do() -> None:
    error = x.IntergiroConsentRequired("c-1", ["make_payment"], "2026-01-01T00:00:00.000Z")

    assert (error.consent_id, error.scope, error.expires_at) == ("c-1", ["make_payment"], "2026-01-01T00:00:00.000Z")
    assert error.status_code == 412
    assert "consents/c-1" in str(error)
    assert "make_payment" in str(error)
