# SPDX-License-Identifier: Apache-2.0
"""A bank without sockets, and its client."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.types import ASGIApp

from intergiro_provider.sandbox.app import App
from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.middleware import captured, replay
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY, Settings

KEYS = (DEFAULT_API_KEY, "reader:transactions", "payer:payments+accounts")
REQUEST_ID = "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10"
PAY, MOVE, BULK = "/v3/transactions/pay", "/v3/transactions/move", "/v1/bulk_payments"
PAYEE = {"name": "Åsa", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}}


class Reply(NamedTuple):
    """A response."""

    status: int
    body: bytes


class Caller:
    """A bank, and a client that has logged in at both APIs."""

    def __init__(self, **settings: Any) -> None:
        self.time = 1_763_942_400.0
        given = {"api_keys": KEYS, "transactions": 50, "now": "2025-11-24", **settings}
        self.bank = Bank(Settings().changed(given), clock=lambda: self.time)
        self.app = App(self.bank)
        self.tokens = {
            (api, key): self.bank.sessions.login(api, key)["access_token"]
            for api in ("v1", "v3")
            for key in (DEFAULT_API_KEY, "reader", "payer")
        }

    def call(self, method: str, path: str, sent: Any = None, key: str = DEFAULT_API_KEY) -> Reply:
        token = self.tokens[path.split("/")[1], key]
        return send(self.app, method, path, sent, authorization=f"Bearer {token}")

    def ids(self, path: str) -> list[str]:
        return [row["id"] for row in json.loads(self.call("GET", path).body)["data"]]

    def payment(self, **changes: Any) -> dict[str, Any]:
        usual = {
            "request_id": REQUEST_ID,
            "account_id": self.ids("/v3/accounts")[0],
            "amount": 1250,
            "reference": "Räkning 7",
            "counterparty": PAYEE,
        }
        return {**usual, **changes}

    def move(self, **changes: Any) -> dict[str, Any]:
        source, target = self.accounts()[:2]
        usual = {"source_account_id": source, "target_account_id": target, "amount": 5, "reference": "x"}
        return {"request_id": REQUEST_ID, **usual, **changes}

    def batch(self, count: int = 2, account: str = "", **changes: Any) -> dict[str, Any]:
        payee = {"name": "Åsa", "account": {"account_iban": "SE4550000000058398257466", "account_bic": "ESSESESS"}}
        items = [{"counterparty": payee, "amount": n + 1, "reference": "lön", **changes} for n in range(count)]
        return {"account_id": account or self.accounts("v1")[0], "items": items}

    def balance(self, account: str, api: str = "v3") -> int:
        return int(json.loads(self.call("GET", f"/{api}/accounts/{account}").body)["balance"])

    def accounts(self, api: str = "v3", currency: str = "EUR") -> list[str]:
        return [row["id"] for row in self.bank.data[api].accounts.values if row["currency"] == currency]

    def transactions(self, api: str = "v3", **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.call("GET", f"/{api}/transactions?{urlencode(query)}").body)[
            "data"
        ]
        return found


def send(app: ASGIApp, method: str, url: str, sent: Any = None, **headers: str) -> Reply:
    """Send one request to an application, without a socket."""
    body = b"" if sent is None else json.dumps(sent).encode()
    path, _, query = url.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()]
        + [(b"host", b"sandbox"), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
    }
    response = asyncio.run(captured(app, scope, replay(body)))
    return Reply(response.status_code, bytes(response.body))


def field(reply: Reply) -> str:
    assert reply.status == 400, reply.body
    return str(json.loads(reply.body)["errors"][0].get("field", ""))
