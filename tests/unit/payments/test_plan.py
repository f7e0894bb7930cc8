# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.payments.plan import check_approval, read_payment, totals_of

PAY: dict[str, Any] = {
    "operation": "pay", "account_id": "a", "amount": 5, "reference": "r",
    "counterparty": {"name": "n", "account_id": "b"}
}  # fmt: skip
MOVE: dict[str, Any] = {
    "operation": "move", "account_id": "a", "amount": 5, "reference": "r", "target_account_id": "b"
}  # fmt: skip


def test_bodies() -> None:
    assert read_payment(**PAY).body == {
        "account_id": "a", "counterparty": {"name": "n", "account_id": "b"}, "amount": 5, "reference": "r"
    }  # fmt: skip
    assert read_payment(**MOVE).body == {
        "source_account_id": "a", "target_account_id": "b", "amount": 5, "reference": "r"
    }  # fmt: skip
    assert not any(secret in repr(read_payment(**PAY)) for secret in ("'a'", "'b'", "'n'", "'r'"))


@pytest.mark.parametrize(
    "change",
    [{"account_id": "x"}, {"amount": 6}, {"reference": "s"}, {"counterparty": {"name": "n", "account_id": "c"}}],
)
def test_a_digest_is_of_the_content(change: dict[str, Any]) -> None:
    assert read_payment(**PAY).digest == read_payment(**PAY, currency=None).digest
    assert read_payment(**PAY).digest != read_payment(**{**PAY, **change}).digest


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**PAY, "operation": "send"}, "`operation` is 'send'"),
    ({**PAY, "target_account_id": "b"}, "`target_account_id` is not used with"),
    ({**MOVE, "counterparty": {}}, "`counterparty` is not used with"),
    ({**MOVE, "target_account_id": None}, "`target_account_id` is None"),
    ({**MOVE, "target_account_id": "a"}, "A move needs two accounts"),
    ({**PAY, "account_id": ""}, "`account_id` is empty"),
    ({**PAY, "reference": " "}, "`reference` is empty"),
    ({**PAY, "reference": None}, "`reference` is None"),
    ({**PAY, "currency": "EURO"}, "`currency` is 'EURO'"),
]


@pytest.mark.parametrize(("arguments", "problem"), REFUSED)
def test_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(IntergiroValueError, match=problem):
        read_payment(**arguments)


def test_totals_are_kept_apart_by_currency() -> None:
    assert totals_of([("EUR", 5), ("SEK", 7), ("EUR", 1), (None, 2)]) == {"EUR": 6, "SEK": 7, "unknown": 2}


def test_approvals() -> None:
    check_approval(None, "d")
    digest = "d" * 64
    check_approval(digest, digest)
    for other in ("e" * 64, "", digest.upper(), {"sha256": digest}):
        with pytest.raises(IntergiroValueError, match="approved_plan"):
            check_approval(other, digest)
