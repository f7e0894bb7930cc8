# SPDX-License-Identifier: Apache-2.0
"""The parts of the bank's messages that a log may show."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from intergiro_provider.api.masking import LONGEST, masked, shown

PAYMENT = {
    "account_id": "a5EXJsMUB5",
    "amount": 125000,
    "reference": "rent for november, flat of ada",
    "counterparty": {"name": "Åsa Öberg", "account": {"iban": "SE45 5000 0000 0583 9825 7466", "bic": "ESSESESS"}},
    "items": [{"correlation_id": "lovelace-17"}],
}


def words(message: str, **request: Any) -> str:
    made = requests.Request("POST", "https://bank.example/v3/transactions/pay", **(request or {"json": PAYMENT}))
    return shown([{"message": message}], made.prepare())


@pytest.mark.parametrize(
    "message",
    [
        "Must be at least 1.",
        "account_id is required, and counterparty.account.iban too",
        "Invalid IBAN: the check digits don't match.",
        "limit must be between 1 and 100",
        "Insufficient funds on the account",
        "This version is too old.",
    ],
)
def test_ordinary_messages_are_shown(message: str) -> None:
    assert words(message) == message


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ("IBAN SE4550000000058398257466 is unknown", "IBAN … is unknown"),
        ("IBAN GB33 BUKB 2020 1555 5555 55 is unknown", "IBAN … is unknown"),
        ("account 5839825-7466 is closed", "account … is closed"),
        ("The value 'Ada Lovelace' is too long", "The value … is too long"),
        ("The value “Ada” of «name» and `x`", "The value … of … and …"),
        ("Åsa Öberg has no such account", "… has no such account"),
        ("Account of Grace Hopper is blocked", "Account of … is blocked"),
        ("rent for november is no valid reference", "… for … is no valid reference"),
        ("name åsa öberg is unknown", "name … is unknown"),
        ("write to ada@example.com or +46 70 123 45 67", "write to … or …"),
        ("lovelace-17 was used", "… was used"),
        ("the balance is 1234.56 EUR", "the balance is … EUR"),
        ("the balance is 125 EUR", "the balance is … EUR"),
        ("number 583 98 25", "number …"),
        ("holder born 1815-12-10", "holder born …"),
        ("token eyJhbGciOiJIUzI1NiJ9.e30.x expired", "token … expired"),
    ],
)
def test_data_are_not_shown(message: str, seen: str) -> None:
    assert words(message) == seen


def test_values_of_the_query_and_of_a_text_are_not_shown() -> None:
    assert words("unknown status pending", params={"statuses": "pending"}) == "unknown status …"
    assert words("unknown word secret", data="secret") == "unknown word …"


def test_a_message_is_cut_and_stays_on_one_line() -> None:
    text = masked("must not be\n\r " * 100)
    assert len(text) == LONGEST + 1
    assert "\n" not in text


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (
            {"code": "invalid", "field": "amount", "message": "Must be positive"},
            "field amount, code invalid, “Must be positive”",
        ),
        ({"code": "SE4550000000058398257466", "field": "Ada Lovelace", "message": None}, "field …, code …"),
        ({"code": 5, "field": ["x"], "message": {}}, ""),
        ({"field": "items[3].amount"}, "field items[3].amount"),
    ],
)  # fmt: skip
def test_field_code_and_message(error: dict[str, Any], seen: str) -> None:
    assert shown([error]) == seen
