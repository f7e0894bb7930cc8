# SPDX-License-Identifier: Apache-2.0
"""Consents."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.unit.sandbox.caller import MOVE, PAY, Caller, Reply, field

RETURN = {"return_url": "https://example.com/back?x=1"}


def asked(reply: Reply) -> dict[str, Any]:
    """Return the consent in the body of a 412."""
    assert reply.status == 412, reply.body
    found: dict[str, Any] = json.loads(reply.body)["consent"]
    return found


def test_a_large_payment_needs_a_persons_consent() -> None:
    caller = Caller(pay_consent_above=1000)
    sent = caller.payment(amount=1001)
    consent = asked(caller.call("POST", PAY, sent))
    assert consent.keys() == {"id", "status", "scope", "expires_at"}
    assert (consent["status"], consent["scope"]) == ("pending", ["make_payment"])
    assert caller.bank.consents.decide_all("approved") == 1
    assert caller.bank.counters.writes == 0
    assert caller.call("POST", PAY, sent).status == 200
    assert asked(caller.call("POST", PAY, {**sent, "request_id": str(uuid.uuid4())}))["id"] != consent["id"]
    assert caller.call("POST", PAY, caller.payment(request_id=str(uuid.uuid4()), amount=1000)).status == 200
    assert caller.call("POST", MOVE, caller.move(request_id=str(uuid.uuid4()), amount=5000)).status == 200


@pytest.mark.parametrize(("mode", "same"), [("kept", True), ("replaced", False)])
def test_a_request_repeated_before_the_decision(mode: str, same: bool) -> None:
    caller = Caller(pay_consent_above=1, consent_repeat=mode, consent_readable=True)
    first, again = (asked(caller.call("POST", PAY, caller.payment())) for _ in range(2))
    assert (first["id"] == again["id"]) is same
    assert caller.bank.consents.decide_all("approved") == 1, "only one can be decided"
    assert caller.call("POST", PAY, caller.payment()).status == 200
    status = json.loads(caller.call("GET", f"/v3/consents/{first['id']}").body)["consent"]["status"]
    assert status == ("approved" if same else "expired")


@pytest.mark.parametrize("mode", ["kept", "replaced"])
def test_a_refused_consent(mode: str) -> None:
    caller = Caller(pay_consent_above=1, consent_repeat=mode)
    first = asked(caller.call("POST", PAY, caller.payment()))
    caller.bank.consents.decide_all("refused")
    again = asked(caller.call("POST", PAY, caller.payment()))
    if mode == "kept":
        assert again == {**first, "status": "refused"}
    else:
        assert (again["id"] != first["id"], again["status"]) == (True, "pending")
    caller.bank.consents.decide_all("approved")
    assert caller.bank.counters.writes == 0


@pytest.mark.parametrize("executes", [True, False])
def test_consent_may_carry_out_the_payment(executes: bool) -> None:
    caller = Caller(pay_consent_above=1, consent_executes=executes)
    asked(caller.call("POST", PAY, caller.payment()))
    caller.bank.consents.decide_all("approved")
    assert caller.bank.counters.writes == executes
    assert caller.call("POST", PAY, caller.payment()).status == 200
    assert (caller.bank.counters.writes, caller.bank.counters.duplicates) == (1, executes)


@pytest.mark.parametrize("life", [60, 5])
def test_a_consent_expires(life: int) -> None:
    caller = Caller(pay_consent_above=1, idempotency="ignore", consent_life=life, consent_readable=True)
    first = asked(caller.call("POST", PAY, caller.payment()))
    caller.time += life
    assert caller.bank.consents.decide_all("approved") == 0
    assert json.loads(caller.call("GET", f"/v3/consents/{first['id']}").body)["consent"]["status"] == "expired"
    assert asked(caller.call("POST", PAY, caller.payment()))["id"] != first["id"]
    caller.bank.consents.decide_all("approved")
    assert caller.call("POST", PAY, caller.payment()).status == 200
    caller.time += life
    asked(caller.call("POST", PAY, caller.payment()))


def test_a_consent_is_read_only_where_that_is_set() -> None:
    caller = Caller(pay_consent_above=1)
    path = f"/v3/consents/{asked(caller.call('POST', PAY, caller.payment()))['id']}"
    assert caller.call("GET", path).status == 405
    caller.bank.change({"consent_readable": True})
    assert json.loads(caller.call("GET", path).body)["consent"]["status"] == "pending"
    assert caller.call("GET", "/v3/consents/nothing").status == 404
    assert caller.call("DELETE", path).status == 405


def test_where_the_person_is_sent() -> None:
    caller = Caller(pay_consent_above=1)
    consent = asked(caller.call("POST", PAY, caller.payment()))
    path = f"/v3/consents/{consent['id']}"
    method = json.loads(caller.call("POST", path, RETURN).body)["method"]
    assert method.keys() == {"redirect_url", "expires_at"}
    assert consent["id"] not in method["redirect_url"], "its URL is a secret of its own"
    assert method["expires_at"] == consent["expires_at"]
    for wrong in ({}, {"return_url": ""}, {"return_url": "javascript:alert(1)"}):
        assert field(caller.call("POST", path, wrong)) == "return_url"
    assert caller.call("POST", "/v3/consents/nothing", RETURN).status == 404
