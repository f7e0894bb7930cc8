# SPDX-License-Identifier: Apache-2.0
"""IntergiroOperator against a bank over real sockets, with a real session."""

from __future__ import annotations

import json
import re
import threading
import time
import traceback
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroClientError,
    IntergiroConsentRequired,
    IntergiroError,
    IntergiroNotFound,
    IntergiroValueError,
    OutcomeUnknown,
    PaymentMismatch,
    UnreadableResponse,
)
from intergiro_provider.operators.intergiro import XCOM_LIMIT, IntergiroOperator
from intergiro_provider.sandbox import Sandbox
from tests.integration.interrupting import interrupted_when
from tests.integration.pulls import Said, bank, said, shared_bank

pytestmark = pytest.mark.integration

AIRFLOW_2 = version("apache-airflow").startswith("2.")

__all__ = ["bank", "said", "shared_bank"]  # fixtures


def call(endpoint: str, context: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return IntergiroOperator(task_id="call", endpoint=endpoint, **arguments).execute(context or {})  # type: ignore[arg-type]


def a_payment(bank: Sandbox) -> dict[str, Any]:
    account = json.loads(bank.records("/v3/accounts")[0])["id"]
    return {
        "request_id": str(uuid.uuid4()),
        "account_id": account,
        "amount": 125_00,
        "reference": "rent",
        "counterparty": {"name": "Åsa Öberg", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}},
    }


class TestResult:
    def test_decoded_json(self, bank: Sandbox) -> None:
        result = call("transactions", query={"limit": 3, "sort_by": "created_at", "sort_type": "ASC"})
        assert result == {"data": [json.loads(r) for r in bank.records()[:3]], "has_more": True}

    def test_one_object(self, bank: Sandbox) -> None:
        expected = json.loads(bank.records()[0])
        assert call(f"/v3/transactions/{expected['id']}") == expected

    def test_big_numbers_and_names(self, bank: Sandbox) -> None:
        content = {"amount": 2**53 + 1, "bigger": 10**30, "name": "Åsa 😀"}
        bank.fault("response", path="/v3/accounts", body=content)
        assert call("accounts", do_xcom_push=False) == content

    def test_an_empty_answer_is_none(self, bank: Sandbox) -> None:
        bank.fault("response", path="/v3/accounts", status=204, body="")
        assert call("accounts", method="DELETE") is None

    @pytest.mark.parametrize("how", ["html", "cut", "not_utf8", "noise"])
    def test_an_answer_that_is_no_json_is_asked_for_again_and_never_quoted(
        self, bank: Sandbox, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank.fault("garbled", path="/v3/transactions", how=how, times=1)
        assert len(call("transactions")["data"]) == 10
        monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 2)
        bank.fault("garbled", path="/v3/transactions", how=how)
        with pytest.raises(UnreadableResponse, match="a body that is not JSON") as caught:
            call("transactions")
        assert not any(json.loads(r)["id"] in repr(caught.value) for r in bank.records())
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_error_statuses(self, bank: Sandbox) -> None:
        with pytest.raises(IntergiroNotFound):
            call("transactions/nosuch")

    def test_a_payment(self, bank: Sandbox) -> None:
        payment = a_payment(bank)
        result = call("transactions/pay", method="post", json=payment)
        [made] = [r for r in map(json.loads, bank.records()) if r["request_id"] == payment["request_id"]]
        assert (result["id"], result["amount"]) == (made["id"], 12500)

    def test_a_key_that_was_used_before_is_named_with_the_remedy(self, bank: Sandbox) -> None:
        payment = a_payment(bank)
        call("transactions/pay", method="post", json=payment)
        with pytest.raises(IntergiroClientError, match=payment["request_id"]) as caught:
            call("transactions/pay", method="post", json={**payment, "amount": 1, "reference": "Secret Street 7"})
        assert "send another `request_id`" in str(caught.value)
        assert "Secret" not in str(caught.value)
        body = {"errors": [{"code": "conflict", "transaction_id": "tr_91", "message": "Used before."}]}
        bank.fault("response", path="/v3/transactions/pay", status=409, body=body, times=1)
        with pytest.raises(IntergiroClientError, match="used before for the transaction tr_91. Nothing was paid now"):
            call("transactions/pay", method="post", json=a_payment(bank))
        bank.fault("response", path="/v3/accounts", status=409, body=body, times=1)
        with pytest.raises(IntergiroClientError, match="Correct the request"):
            call("accounts", method="post", json={})

    def test_a_payment_whose_answer_is_lost_is_made_once(self, bank: Sandbox) -> None:
        bank.fault("lose_response", path="/v3/transactions/pay", times=1)
        payment = a_payment(bank)
        call("transactions/pay", method="POST", json=payment)
        made = [r for r in bank.records() if json.loads(r)["request_id"] == payment["request_id"]]
        assert len(made) == 1

    def test_a_payment_that_needs_consent(self, bank: Sandbox) -> None:
        bank.set(pay_consent_above=100)
        with pytest.raises(IntergiroConsentRequired) as caught:
            call("transactions/pay", method="POST", json=a_payment(bank))
        assert caught.value.scope == ["make_payment"]

    def test_headers(self, bank: Sandbox) -> None:
        call("accounts", headers={"X-Request-Source": "nightly"})
        assert ["x-request-source", "nightly"] in [list(h) for h in bank.requests()[-1]["headers"]]

    def test_an_error_status_that_is_wanted_as_a_result(self, bank: Sandbox) -> None:
        status = call(
            "transactions/nosuch",
            response_filter=lambda response: response.status_code,
            extra_options={"check_response": False},
        )
        assert status == 404

    def test_a_time_limit_of_its_own(self, bank: Sandbox) -> None:
        bank.fault("hang", path="/v3/accounts", seconds=300)
        with pytest.raises(BankUnavailable, match=rf"No response from {bank.url} to GET /v3/accounts \(ReadTimeout\)"):
            call("accounts", extra_options={"timeout": (5, 0.3), "retry": False})


class TestCallables:
    """Callables get the response, and those names of the context that they have as parameters, as in HttpOperator."""

    CONTEXT = {"ds": "2026-01-31", "ti": None, "params": {"status": "open"}}  # noqa: RUF012

    def test_response_check(self, bank: Sandbox) -> None:
        call("accounts", response_check=lambda response: response.status_code == 200)
        with pytest.raises(IntergiroError, match=r"`response_check` returned False for accounts \(status 200\)"):
            call("accounts", response_check=lambda response: False)

    def test_response_filter(self, bank: Sandbox) -> None:
        assert call("accounts", response_filter=lambda response: response.status_code) == 200

    def test_what_they_ask_for_of_the_context(self, bank: Sandbox) -> None:
        def check(response: requests.Response, ds: str, **context: Any) -> bool:
            return ds == "2026-01-31" and context["params"] == {"status": "open"}

        def pick(response: requests.Response, params: dict[str, Any]) -> list[Any]:
            return [type(response).__name__, params["status"]]

        assert call("accounts", self.CONTEXT, response_check=check, response_filter=pick) == ["Response", "open"]

    def test_a_filter_may_take_what_is_no_json(self, bank: Sandbox) -> None:
        bank.fault("response", path="/v3/accounts", body="plain text", headers={"Content-Type": "text/plain"})
        assert "plain text" in call("accounts", response_filter=lambda response: response.text)


class TestAfterAWrite:
    """After the response to a write that must not be repeated, no error lets Airflow repeat it."""

    @pytest.mark.parametrize(
        ("arguments", "happened"),
        [
            ({"response_check": lambda response: False}, "`response_check` returned False"),
            (
                {"response_check": lambda response: response.json()["nosuch"]},
                r"`response_check` \(<lambda>\) raised KeyError",
            ),
            ({"response_filter": lambda response: 1 / 0}, r"`response_filter` \(<lambda>\) raised ZeroDivisionError"),
            ({"extra_options": {"check_response": False}}, "a body that is not JSON"),
        ],
    )
    def test_an_error_is_final(self, bank: Sandbox, arguments: dict[str, Any], happened: str) -> None:
        status = 502 if "extra_options" in arguments else 200
        bank.fault("response", path="/v3/consents", status=status, body="<html>" if status == 502 else {"id": "c"})
        with pytest.raises(OutcomeUnknown, match=happened):
            call("consents/c", method="POST", json={"return_url": "https://example.com"}, **arguments)
        assert bank.counters().by_path.total() == 1

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_where_a_repetition_is_safe_airflow_may_retry(self, bank: Sandbox, method: str) -> None:
        bank.fault("response", path="/v3/transactions/pay", body={"id": "t"})
        body = {"request_id": str(uuid.uuid4())} if method == "POST" else None
        with pytest.raises(IntergiroError, match="raised KeyError"):
            call("transactions/pay", method=method, json=body, response_check=lambda response: response.json()["x"])

    @pytest.mark.parametrize("changed", ["amount", "account_id", "reference"])
    def test_another_payment_of_the_same_key_is_not_a_success(self, bank: Sandbox, changed: str) -> None:
        asked = {"request_id": str(uuid.uuid4()), "amount": 100, "account_id": "a", "reference": "r"}
        shown = {**asked, "id": "t1", "amount": -100, changed: {"amount": -999}.get(changed, "other")}
        bank.fault("response", path="/v3/transactions/pay", times=1, body={**asked, "id": "t0", "amount": -100})
        assert call("transactions/pay", method="POST", json=asked)["id"] == "t0"
        bank.fault("response", path="/v3/transactions/pay", body=shown)
        with pytest.raises(PaymentMismatch, match=f"differs from this request in {changed}.*transaction t1"):
            call("transactions/pay", method="POST", json=asked)

    @pytest.mark.parametrize("kind", [AirflowFailException, AirflowSkipException])
    def test_what_a_check_decides_counts(self, bank: Sandbox, kind: type[Exception]) -> None:
        def decide(response: requests.Response) -> bool:
            raise kind("as the author wants")

        bank.fault("response", path="/v3/consents", body={})
        with pytest.raises(kind, match="as the author wants"):
            call("consents/c", method="POST", json={}, response_check=decide)

    @pytest.mark.parametrize(("endpoint", "kind"), [("consents/c", OutcomeUnknown), ("accounts", AirflowTaskTimeout)])
    @pytest.mark.parametrize("where", ["in the call", "in response_check"])
    def test_execution_timeout(self, bank: Sandbox, endpoint: str, kind: type[BaseException], where: str) -> None:
        call("accounts")  # creates a session
        method = "POST" if kind is OutcomeUnknown else "GET"
        checking = threading.Event()

        def check(response: requests.Response) -> bool:
            checking.set()
            return not time.sleep(300)

        if where == "in the call":
            bank.fault("hang", path=f"/v3/{endpoint}", seconds=300)
        else:
            bank.fault("response", path=f"/v3/{endpoint}", body={})

        def reached() -> bool:
            return checking.is_set() or (where == "in the call" and bank.counters().faults["hang"] > before)

        before = bank.counters().faults["hang"]
        with interrupted_when(reached, AirflowTaskTimeout), pytest.raises(kind):
            call(endpoint, method=method, json={} if method == "POST" else None, response_check=check)


class TestXCom:
    """If Airflow 3 cannot store the result, the error says that the request was sent."""

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ('{"data": [{"amount": 18446744073709551616}]}', r"an integer of more than 64 bits at data\[0\].amount"),
            ('{"a": {"b": "x\\u0000y"}}', "a NUL character at a.b"),
            ('{"name": "\\ud800"}', "a lone surrogate at name"),
            ('{"\\ud800 Lovelace": 1}', "a lone surrogate at …"),
        ],
    )
    def test_a_result_that_cannot_be_stored(self, bank: Sandbox, body: str, problem: str) -> None:
        bank.fault("response", path="/v3/accounts", body=body)
        if AIRFLOW_2:
            assert call("accounts") == json.loads(body)
            return
        with pytest.raises(
            IntergiroValueError, match=f"GET accounts was carried out, .*{problem}.*response_filter.*do_xcom_push=False"
        ):
            call("accounts")
        assert call("accounts", do_xcom_push=False) == json.loads(body)
        assert call("accounts", response_filter=lambda response: response.status_code) == 200

    @pytest.mark.parametrize(
        ("result", "problem"),
        [(b"x", "an object of type bytes."), ({"a": [iter("x")]}, "an object of type ")],
    )
    def test_what_xcom_cannot_serialize_does_not_let_airflow_repeat_a_write(
        self, bank: Sandbox, result: Any, problem: str
    ) -> None:
        bank.fault("response", path="/v3/consents", body={})
        arguments: dict[str, Any] = {"method": "POST", "json": {}, "response_filter": lambda response: result}
        with pytest.raises(IntergiroValueError, match=f"POST consents/c was carried out, .*{problem}"):
            call("consents/c", **arguments)
        assert call("consents/c", do_xcom_push=False, **arguments) is result

    @pytest.mark.parametrize("result", [{1: {2}}, (1, "x"), datetime(2026, 1, 1, tzinfo=UTC)])
    def test_what_xcom_can_serialize(self, bank: Sandbox, result: Any) -> None:
        assert call("accounts", response_filter=lambda response: result) is result

    def test_nan_is_not_json(self, bank: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 1)
        bank.fault("response", path="/v3/accounts", body='{"amount": NaN}')
        with pytest.raises(UnreadableResponse):
            call("accounts")

    @pytest.mark.parametrize("value", [2**64 - 1, -(2**63), "Åsa 😀", {"a": [True, None, 1.5]}])
    def test_what_can_be_stored(self, bank: Sandbox, value: Any) -> None:
        bank.fault("response", path="/v3/accounts", body={"value": value})
        assert call("accounts") == {"value": value}


class TestLog:
    """Errors of the provider leave the operator without the provider's frames. The log at DEBUG contains them."""

    def test_frames(self, bank: Sandbox) -> None:
        with pytest.raises(IntergiroNotFound) as caught:
            call("transactions/nosuch")
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert [frame.filename for frame in frames if "intergiro_provider" in frame.filename] == []
        assert frames[-1].name == f"IntergiroNotFound: {caught.value}"
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)

    def test_errors_of_a_check_keep_theirs(self, bank: Sandbox) -> None:
        def check(response: requests.Response) -> bool:
            raise KeyError("mine")

        with pytest.raises(IntergiroError, match=r"`response_check` \(check\) raised KeyError") as caught:
            call("accounts", response_check=check)
        assert isinstance(caught.value.__cause__, KeyError)
        assert traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].name == "check"


class TestSize:
    """A result that is too large for XCom is returned, with a warning."""

    def test_a_large_result(self, bank: Sandbox, said: Said) -> None:
        result = call("transactions", query={"limit": 100})
        assert len(result["data"]) == 100
        assert re.search(r"XCom.*IntergiroToObjectStorageOperator.*response_filter", said())

    @pytest.mark.parametrize(
        "arguments",
        [
            {"query": {"limit": 5}},
            {"query": {"limit": 100}, "do_xcom_push": False},
            {"query": {"limit": 100}, "response_filter": lambda response: len(response.content)},
        ],
    )
    def test_nothing_to_point_out(self, bank: Sandbox, said: Said, arguments: dict[str, Any]) -> None:
        call("transactions", **arguments)
        assert "XCom" not in said()

    def test_a_filter_that_makes_it_large(self, bank: Sandbox, said: Said) -> None:
        call("accounts", response_filter=lambda response: "x" * XCOM_LIMIT)
        assert "XCom" in said()

    def test_a_result_that_is_no_json_at_all(self, bank: Sandbox) -> None:
        assert call("accounts", response_filter=lambda response: {(1, 2): {3}}, do_xcom_push=False) == {(1, 2): {3}}
