# SPDX-License-Identifier: Apache-2.0
"""Bodies of payments that are not valid."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.sandbox.caller import BULK, MOVE, PAY, PAYEE, Caller, field


def without(sent: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in sent.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"request_id": "7"}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"account_id": "nothing"}, "account_id"),
        ({"amount": 0}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"reference": ""}, "reference"),
        ({"reference": None}, "reference"),
        ({"note": "new"}, "note"),
        ({"counterparty": "Åsa"}, "counterparty"),
        ({"counterparty": {}}, "counterparty.name"),
        ({"counterparty": {"name": "Åsa"}}, "counterparty"),
        ({"counterparty": {**PAYEE, "account_id": "x"}}, "counterparty"),
        ({"counterparty": {**PAYEE, "account_id": None}}, "counterparty.account_id"),
        ({"counterparty": {"name": "Åsa", "account": {"iban": "SE1"}}}, "counterparty.account.bic"),
        ({"counterparty": {"name": "Åsa", "account": {"iban": "", "bic": "X"}}}, "counterparty.account.iban"),
        ({"counterparty": {"name": "Åsa", "account_details": {"iban": "SE1"}}}, "counterparty.account_details"),
    ],
)
def test_payments_that_do_not_validate(changes: dict[str, Any], wanted: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", PAY, caller.payment(**changes))) == wanted
    assert caller.bank.counters.writes == 0


@pytest.mark.parametrize("name", ["source_account_id", "target_account_id", "amount", "reference", "request_id"])
def test_a_move_needs_each_field(name: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", MOVE, without(caller.move(), name))) == name
    assert field(caller.call("POST", MOVE, {**caller.move(), "account_id": "x"})) == "account_id"


@pytest.mark.parametrize("sent", [[], "x", 7])
def test_a_body_that_is_no_object(sent: Any) -> None:
    assert field(Caller().call("POST", PAY, sent)) == ""


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"count": 0}, "items"),
        ({"count": 1001}, "items"),
        ({"amount": -1}, "items.0.amount"),
        ({"correlation_id": None}, "items.0.correlation_id"),
        ({"counterparty": None}, "items.0.counterparty"),
        ({"counterparty": PAYEE}, "items.0.counterparty.account.iban"),
        ({"account": "nothing"}, "account_id"),
    ],
)
def test_batches_that_do_not_validate(changes: dict[str, Any], wanted: str) -> None:
    caller = Caller()
    assert field(caller.call("POST", BULK, caller.batch(**changes))) == wanted
    assert caller.bank.counters.writes == 0
