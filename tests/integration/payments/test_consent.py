# SPDX-License-Identifier: Apache-2.0
"""A payment that needs a person's consent: wait in the triggerer, look up the payment, then send the same key."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import TaskDeferred

from intergiro_provider import exceptions as x
from intergiro_provider.operators.payments import IntergiroPaymentOperator
from intergiro_provider.payments import single
from intergiro_provider.sandbox import Sandbox
from intergiro_provider.triggers.payments import consent_variable
from tests.integration.payments.support import BIC, IBAN, NAME, PAYEE, account, context, made
from tests.integration.pulls import CONNECTION, Said, bank, said, shared_bank

pytestmark = pytest.mark.integration

__all__ = ["bank", "said", "shared_bank"]  # fixtures


@pytest.fixture(autouse=True)
def consents(bank: Sandbox) -> None:
    bank.set(seed=bank.settings()["seed"], pay_consent_above=1, consent_life=600.0)


def operator(bank: Sandbox, **arguments: Any) -> IntergiroPaymentOperator:
    return IntergiroPaymentOperator(
        task_id="pay", operation="pay", account_id=account(bank), amount=125_00, reference="Rent", counterparty=PAYEE,
        wait_for_consent=True, consent_poll_interval=0.1, **arguments,
    )  # fmt: skip


def deferred(task: IntergiroPaymentOperator, where: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(where)
    return caught.value


def event_of(waiting: TaskDeferred) -> dict[str, Any]:
    async def first() -> Any:
        async for event in waiting.trigger.run():
            return event.payload
        return None

    return asyncio.run(asyncio.wait_for(first(), 30))


def resume(task: IntergiroPaymentOperator, waiting: TaskDeferred, event: Any, where: Any) -> dict[str, Any]:
    return getattr(task, waiting.method_name)(where, event, **(waiting.kwargs or {}))


def person_returns(waiting: TaskDeferred) -> None:
    """Store that the person has returned, as the page in Airflow's UI does."""
    from airflow.models import Variable

    Variable.set(consent_variable(waiting.trigger.consent_id), "returned")


@pytest.mark.parametrize("with_record", [False, True])
@pytest.mark.parametrize(
    ("executes", "readable", "repeat"), itertools.product([False, True], [False, True], ["kept", "replaced"])
)
def test_an_approved_payment_is_made_once(
    bank: Sandbox, tmp_path: Path, executes: bool, readable: bool, repeat: str, with_record: bool, said: Said
) -> None:
    bank.set(consent_executes=executes, consent_readable=readable, consent_repeat=repeat)
    task, where = operator(bank, **({"record_path": f"file://{tmp_path}"} if with_record else {})), context()
    waiting = deferred(task, where)
    assert not made(bank)
    bank.approve_consents()
    if not readable:
        person_returns(waiting)
    event = event_of(waiting)
    assert event == {"decision": "approved" if readable else "returned"}
    result = resume(task, waiting, event, where)
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]
    text = said() + json.dumps([event, waiting.kwargs, waiting.trigger.serialize(), result])
    assert not any(secret in text for secret in (IBAN, NAME, BIC, "Rent", "_sandbox/consents"))


def test_a_bank_that_executes_a_while_after_the_consent_is_waited_for(
    bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(message: str, *_: object) -> None:
        if "The look-up starts in" in message:
            bank.approve_consents()

    bank.set(consent_executes=True, idempotency="ignore")
    settle = timedelta(seconds=1)
    task = operator(bank, record_path=f"file://{tmp_path}", key_trusted_for=timedelta(0), settle=settle)
    waiting = deferred(task, context())
    time.sleep(1)  # the person takes longer than `settle`
    monkeypatch.setattr(single.log, "info", said)
    resume(task, waiting, {"decision": "approved"}, context())
    assert len(made(bank)) == 1


def test_a_consent_that_the_bank_shows_as_pending_has_not_expired(bank: Sandbox) -> None:
    """By the clock of this machine it has expired. That clock may be ahead of the bank's clock."""
    bank.set(consent_readable=True)
    task, where = operator(bank), context()
    waiting = deferred(task, where)
    waiting.trigger.expires_at = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    approval = threading.Timer(0.5, bank.approve_consents)
    approval.start()
    assert event_of(waiting) == {"decision": "approved"}


def test_a_status_that_is_not_known_is_not_taken_for_expired(bank: Sandbox) -> None:
    bank.fault("response", path="/v3/consents", method="GET", status=200, body={"consent": {"status": "signed"}})
    task, where = operator(bank), context()
    waiting = deferred(task, where)
    bank.approve_consents()
    waiting.trigger.expires_at = datetime.now(UTC).isoformat()
    event = event_of(waiting)
    assert event == {"decision": "unknown"}
    resume(task, waiting, event, where)
    assert len(made(bank)) == 1


def test_a_new_api_key_during_the_wait_leaves_the_idempotency_key(
    bank: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank has made the payment on consent. Only the same key identifies it."""
    bank.set(consent_executes=True)
    task, where = operator(bank), context(run="rotated")
    waiting = deferred(task, where)
    bank.approve_consents()
    bank.set(api_keys=[*bank.settings()["api_keys"], "a-new-key"])
    changed = {**json.loads(os.environ[CONNECTION]), "password": "a-new-key"}
    monkeypatch.setenv(CONNECTION, json.dumps(changed))
    result = resume(task, waiting, {"decision": "approved"}, where)
    assert [t["id"] for t in made(bank)] == [result["payment_id"]]


@pytest.mark.parametrize(("how", "decision"), [("refused", "refused"), ("expired", "expired")])
def test_without_consent_nothing_is_paid(bank: Sandbox, how: str, decision: str) -> None:
    bank.set(consent_readable=True, consent_life=600.0 if how == "refused" else 1.0)
    task, where = operator(bank), context()
    waiting = deferred(task, where)
    if how == "refused":
        bank.refuse_consents()
    event = event_of(waiting)
    assert event == {"decision": decision}
    with pytest.raises(x.PaymentRejected, match=r"consent for payment .* clear this task"):
        resume(task, waiting, event, where)
    assert not made(bank)


def test_a_bank_that_shows_nothing_is_asked_once_before_the_consent_expires(bank: Sandbox) -> None:
    bank.set(consent_life=4.0)
    task, where = operator(bank), context()
    waiting = deferred(task, where)
    bank.approve_consents()
    waiting.trigger.expires_at = datetime.now(UTC).isoformat()
    event = event_of(waiting)
    assert event == {"decision": "unknown"}
    resume(task, waiting, event, where)
    assert len(made(bank)) == 1


def test_a_person_who_returned_without_deciding_is_waited_for_again(bank: Sandbox) -> None:
    task, where = operator(bank), context()
    waiting = deferred(task, where)
    person_returns(waiting)
    with pytest.raises(TaskDeferred) as again:
        resume(task, waiting, event_of(waiting), where)
    bank.approve_consents()
    person_returns(again.value)
    resume(task, again.value, event_of(again.value), where)
    assert len(made(bank)) == 1


def test_the_person_returns_to_the_address_of_airflow(bank: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.api_fastapi.core_api.security")
    from starlette.testclient import TestClient

    from intergiro_provider.plugins import consent_pages

    consent = {"consent_id": deferred(operator(bank), context()).trigger.consent_id, "conn_id": "intergiro_default"}
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://air.example/team")
    app = consent_pages.build()
    app.dependency_overrides |= {
        consent_pages.Allowed.dependency: lambda: None,
        consent_pages.consent_of: lambda: consent,
    }
    page = TestClient(app).post("/consents/rents/r1/pay/-1", follow_redirects=False)
    back = requests.post(f"{page.headers['Location']}/approved", allow_redirects=False, timeout=60)
    assert back.headers["Location"] == "https://air.example/team/intergiro/consents/rents/r1/pay/-1/returned"


def test_without_wait_for_consent_the_task_fails(bank: Sandbox) -> None:
    task = operator(bank)
    task.wait_for_consent = False
    with pytest.raises(x.IntergiroConsentRequired):
        task.execute(context())


def test_the_trigger_writes_nothing(bank: Sandbox) -> None:
    bank.set(consent_readable=True)
    waiting = deferred(operator(bank), context())
    before = sum(n for path, n in bank.counters().by_path.items() if path.startswith("POST") and "auth" not in path)
    bank.approve_consents()
    event_of(waiting)
    after = sum(n for path, n in bank.counters().by_path.items() if path.startswith("POST") and "auth" not in path)
    assert before == after
