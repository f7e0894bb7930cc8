# SPDX-License-Identifier: Apache-2.0
"""A bank without a wire, and a client of it."""

from __future__ import annotations

import json
from typing import Any

from intergiro_provider.sandbox.bank import Bank, route
from intergiro_provider.sandbox.replies import Reply, Request
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY, Settings

KEYS = (DEFAULT_API_KEY, "reader:transactions", "payer:payments+accounts")
REQUEST_ID = "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10"
PAY, MOVE, BULK = "/v3/transactions/pay", "/v3/transactions/move", "/v1/bulk_payments"
PAYEE = {"name": "Åsa", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}}


class Caller:
    """A bank, and a client of it that has logged in everywhere."""

    def __init__(self, **settings: Any) -> None:
        self.time = 1_763_942_400.0
        given = {"api_keys": KEYS, "transactions": 50, "now": "2025-11-24", **settings}
        self.bank = Bank(Settings().changed(given), clock=lambda: self.time)
        self.tokens = {
            (api, key): self.bank.sessions.login(api, key)["access_token"]
            for api in ("v1", "v3")
            for key in (DEFAULT_API_KEY, "reader", "payer")
        }

    def call(self, method: str, path: str, sent: Any = None, key: str = DEFAULT_API_KEY) -> Reply:
        token = self.tokens[path.split("/")[1], key]
        body = b"" if sent is None else json.dumps(sent).encode()
        request = Request(method, path, {}, {"authorization": f"Bearer {token}"}, body)
        to = route(path)
        return self.bank.refuse(request, to) or self.bank.answer(request, to)

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
        path, headers = f"/{api}/transactions", {"authorization": f"Bearer {self.tokens[api, DEFAULT_API_KEY]}"}
        request = Request("GET", path, {name: [value] for name, value in query.items()}, headers)
        found: list[dict[str, Any]] = json.loads(self.bank.answer(request, route(path)).body)["data"]
        return found


def field(reply: Reply) -> str:
    assert reply.status == 400, reply.body
    return str(json.loads(reply.body)["errors"][0].get("field", ""))
