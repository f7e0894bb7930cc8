# SPDX-License-Identifier: Apache-2.0
"""IntergiroOperator against a bank over real sockets, with a real session."""

from __future__ import annotations

import json
import re
import textwrap
import uuid
from typing import Any

import pytest
import requests

from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroConsentRequired,
    IntergiroError,
    IntergiroNotFound,
    UnreadableResponse,
)
from intergiro_provider.operators.intergiro import XCOM_COMFORT, IntergiroOperator
from intergiro_provider.sandbox import Sandbox
from tests.integration.pulls import Said, bank, said, shared_bank

pytestmark = pytest.mark.integration

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
        bank.fault("answer", path="/v3/accounts", body=content)
        assert call("accounts") == content

    def test_an_empty_answer_is_none(self, bank: Sandbox) -> None:
        bank.fault("answer", path="/v3/accounts", status=204, body="")
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

    def test_the_payment_of_the_docstring_is_made_once_however_often_it_is_tried(self, bank: Sandbox) -> None:
        from airflow import macros

        code = textwrap.dedent(
            (IntergiroOperator.__doc__ or "").partition("code-block:: python\n\n")[2].partition("    :param")[0]
        )
        names: dict[str, Any] = {"IntergiroOperator": IntergiroOperator}
        exec(f"made = {code.strip()}", names)
        account = a_payment(bank)["account_id"]
        context = {
            "macros": macros, "run_id": "manual__2026-01-31", "ds": "2026-01-31",
            "params": {
                "account_id": account, "landlord": "Åsa Öberg", "iban": "SE4550000000058398257466", "bic": "ESSESESS",
            },
        }  # fmt: skip
        names["made"].render_template_fields(context)
        first, again = (names["made"].execute(context) for _ in range(2))
        assert first["id"] == again["id"]
        [made] = [r for r in map(json.loads, bank.records()) if r["reference"] == "Rent"]
        assert made["id"] == first["id"]
        assert uuid.UUID(made["request_id"]).version == 5

    def test_a_payment_whose_answer_is_lost_is_made_once(self, bank: Sandbox) -> None:
        bank.fault("lose_answer", path="/v3/transactions/pay", times=1)
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
        bank.fault("hang", path="/v3/accounts", seconds=30)
        with pytest.raises(BankUnavailable, match=rf"No response from {bank.url} to GET /v3/accounts \(ReadTimeout\)"):
            call("accounts", extra_options={"timeout": (5, 0.3), "retry": False})


class TestCallables:
    """They are called as the HttpOperator calls them: with the response, and with what they ask for of the context."""

    CONTEXT = {"ds": "2026-01-31", "ti": None, "params": {"status": "open"}}  # noqa: RUF012

    def test_response_check(self, bank: Sandbox) -> None:
        call("accounts", response_check=lambda response: response.status_code == 200)
        with pytest.raises(IntergiroError, match=r"response_check returned False for accounts \(status 200\)"):
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
        bank.fault("answer", path="/v3/accounts", body="plain text", headers={"Content-Type": "text/plain"})
        assert "plain text" in call("accounts", response_filter=lambda response: response.text)


class TestSize:
    """A result that is too large for XCom is returned all the same, and pointed out."""

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
        call("accounts", response_filter=lambda response: "x" * XCOM_COMFORT)
        assert "XCom" in said()

    def test_a_result_that_is_no_json_at_all(self, bank: Sandbox) -> None:
        assert call("accounts", response_filter=lambda response: {(1, 2): {3}}) == {(1, 2): {3}}
