# SPDX-License-Identifier: Apache-2.0
"""A write without an idempotency key is sent once; if its outcome is unknown, the error is final."""

from __future__ import annotations

import json
import socket
import uuid
from typing import Any

import pytest
import requests

from intergiro_provider import exceptions as x
from intergiro_provider.hooks.intergiro import IntergiroHook
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.sandbox import Sandbox
from scripts.services import wait_until
from tests.integration.hooks.connections import Connect

pytestmark = pytest.mark.integration

HIDDEN: list[tuple[str, dict[str, Any]]] = [
    ("lose_response", {}),
    ("lose_response", {"reset": True}),
    ("drop", {}),
    ("hang", {"seconds": 300}),
    ("status", {"status": 408}),
    ("status", {"status": 500, "handled": True}),
    ("status", {"status": 502, "body": "html"}),
    ("status", {"status": 524}),
    ("response", {"status": 201, "body": "<html>", "headers": {"Content-Type": "text/html"}}),
    ("response", {"status": 200, "body": '{"id": "p-1", "amou'}),
    ("response", {"status": 200, "body": '{"amount": NaN}'}),
]
"""Faults after which it is unknown whether the bank carried out the request."""


def send(by: str, hook: IntergiroHook, endpoint: str, body: dict[str, Any], method: str = "POST") -> Any:
    match by:
        case "run":
            return hook.run(endpoint, body)
        case "operator":
            operator = IntergiroOperator(
                task_id="t", endpoint=endpoint, method=method, json=body, intergiro_conn_id=hook.intergiro_conn_id
            )
            return operator.execute({})
        case _:
            return hook.get_conn().request(method, endpoint, json=body)


def writes(sandbox: Sandbox) -> int:
    return sum(
        n
        for path, n in sandbox.counters().by_path.items()
        if path.startswith(("POST", "PATCH")) and "/auth/" not in path
    )


@pytest.mark.parametrize("by", ["run", "operator", "get_conn"])
@pytest.mark.parametrize(("kind", "params"), HIDDEN)
def test_it_is_sent_once_and_final(
    sandbox: Sandbox, connect: Connect, kind: str, params: dict[str, Any], by: str
) -> None:
    connect(api="2d").run("accounts")  # creates a session
    hook = connect(method="POST", api="2d", **({"read_timeout": 0.5} if kind == "hang" else {}))
    account = json.loads(sandbox.records("/v1/accounts")[0])["id"]
    items = [{"counterparty": {"name": "Ada", "account": {"account_iban": "SE45"}}, "amount": 5}]
    sandbox.fault(kind, path="/v1/bulk_payments", **params)

    with pytest.raises(x.OutcomeUnknown, match=r"POST /v1/bulk_payments \(no idempotency key\).*portal") as caught:
        send(by, hook, "bulk_payments", {"account_id": account, "items": items})
    wait_until(lambda: writes(sandbox) > 0)
    assert writes(sandbox) == 1
    assert caught.value.__cause__ is None
    assert "SE45" not in repr(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "method", "fields"),
    [
        ("individuals", "POST", {"api": "3d"}),
        ("consents/c", "POST", {"api": "3d"}),
        ("transactions/pay/", "POST", {"api": "3d"}),
        ("/v2/transactions/pay", "POST", {"api": "3d"}),
        ("transactions/pay", "PATCH", {"api": "3d"}),
        ("transactions/pay", "POST", {"api": "2d"}),
    ],
)
@pytest.mark.parametrize("by", ["run", "get_conn"])
def test_a_request_id_protects_only_where_it_is_documented(
    sandbox: Sandbox, connect: Connect, endpoint: str, method: str, fields: dict[str, Any], by: str
) -> None:
    hook = connect(method=method, **fields)
    hook.get_conn().get("accounts")
    sandbox.fault("status", path="/v", status=503)

    with pytest.raises(x.OutcomeUnknown, match="no idempotency key"):
        send(by, hook, endpoint, {"request_id": str(uuid.uuid4()), "name": "x"}, method)
    assert writes(sandbox) == 1


@pytest.mark.parametrize("key", [None, "", 5, {}])
def test_a_request_id_that_is_no_key_does_not_protect(sandbox: Sandbox, connect: Connect, key: Any) -> None:
    sandbox.fault("drop", path="/v3/transactions/pay")

    with pytest.raises(x.OutcomeUnknown):
        connect(method="POST").run("transactions/pay", {"request_id": key, "amount": 5})
    assert writes(sandbox) == 1


@pytest.mark.parametrize("endpoint", ["transactions/pay", "/v3/transactions/move"])
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("how", [{"kind": "drop"}, {"kind": "response", "body": "<html>"}, {"kind": "status"}])
def test_a_request_id_protects_where_it_is_documented(
    sandbox: Sandbox, connect: Connect, endpoint: str, as_text: bool, how: dict[str, Any]
) -> None:
    hook = connect(method="POST")
    body: Any = {"request_id": str(uuid.uuid4()), "amount": 5}
    sandbox.fault(path="/v3/transactions", times=2, **how)
    sandbox.fault("response", path="/v3/transactions", body={"id": "t-1"})

    assert hook.run(endpoint, json.dumps(body) if as_text else body).json() == {"id": "t-1"}
    assert writes(sandbox) == 3


@pytest.mark.parametrize(
    ("first", "then", "error"),
    [
        ("lose_response", {"kind": "status", "status": 409}, x.OutcomeUnknown),
        ("lose_response", {"kind": "status", "status": 403}, x.OutcomeUnknown),
        ("status", {"kind": "status", "status": 404}, x.OutcomeUnknown),
        ("lose_response", {"kind": "response", "status": 401}, x.OutcomeUnknown),
        ("lose_response", {"kind": "status", "status": 503}, x.IntergiroServerError),
        ("lose_response", {"kind": "consent"}, x.IntergiroConsentRequired),
        ("rate_limit", {"kind": "status", "status": 409}, x.IntergiroClientError),
    ],
)
def test_a_refusal_after_a_lost_answer_leaves_the_outcome_unknown(
    sandbox: Sandbox, connect: Connect, first: str, then: dict[str, Any], error: type[Exception]
) -> None:
    key = str(uuid.uuid4())
    sandbox.fault(first, path="/v3/transactions", times=1)
    sandbox.fault(path="/v3/transactions", **then)

    with pytest.raises(x.IntergiroError) as caught:
        connect(method="POST").run("transactions/pay", {"request_id": key, "amount": 5})
    assert type(caught.value) is error
    if error is x.OutcomeUnknown:
        assert f"idempotency key {key}" in str(caught.value)
        assert f"the last one with status {then['status']}" in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(400, x.IntergiroValidationError), (429, x.IntergiroRateLimited)])
def test_a_refused_write_is_not_unknown(sandbox: Sandbox, connect: Connect, status: int, kind: type[Exception]) -> None:
    hook = connect(method="POST")
    sandbox.fault("status", path="/v3/consents", status=status)

    with pytest.raises(kind):
        hook.run("consents/c", {"return_url": "https://example.com"})
    assert hook.get_conn().post("consents/c", json={}).status_code == status


def test_an_error_status_that_is_wanted_is_returned(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.fault("status", path="/v3/consents", status=503)

    response = connect(method="POST").run("consents/c", {}, extra_options={"check_response": False})
    assert response.status_code == 503


def test_what_certainly_did_not_leave_is_sent_again(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(method="POST")
    hook.get_conn().get("accounts")
    hook.get_conn().close()
    connected, refused = socket.socket.connect, [2]

    def connect_later(self: socket.socket, address: Any) -> None:
        if refused[0]:
            refused[0] -= 1
            raise ConnectionRefusedError
        connected(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_later)
    with pytest.raises(x.IntergiroNotFound):
        hook.run("consents/nosuch", {"return_url": "https://example.com"})
    assert refused == [0]
    assert writes(sandbox) == 1


def test_a_lost_answer_after_a_renewal(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(method="POST")
    hook.get_conn().get("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault("lose_response", path="/v3/consents", skip=1)

    with pytest.raises(x.OutcomeUnknown):
        hook.run("consents/c", {"return_url": "https://example.com"})
    assert sandbox.counters().refreshes == 1


def test_a_401_and_no_renewal_is_not_unknown(sandbox: Sandbox, connect: Connect) -> None:
    hook = connect(method="POST")
    hook.get_conn().get("accounts")
    sandbox.expire_access_tokens()
    sandbox.fault("status", path="/v3/auth/refresh", status=503)

    with pytest.raises(x.BankUnavailable):
        hook.run("consents/c", {"return_url": "https://example.com"})


def test_a_lost_answer_after_a_redirect(sandbox: Sandbox, connect: Connect) -> None:
    sandbox.fault("redirect", path="/v3/elsewhere", to="/v3/consents/c", status=307)
    sandbox.fault("lose_response", path="/v3/consents")

    with pytest.raises(x.OutcomeUnknown, match="POST /v3/consents/c"):
        connect(method="POST").run("elsewhere", {"return_url": "https://example.com"})
    assert writes(sandbox) == 2


def test_an_interrupt_is_not_followed_by_another_request(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(method="POST")

    class Interrupting(requests.adapters.HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            super().send(*args, **kwargs)
            raise KeyboardInterrupt

    hook.adapter = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        hook.run("transactions/pay", {"request_id": str(uuid.uuid4())})
    assert writes(sandbox) == 1
