# SPDX-License-Identifier: Apache-2.0
"""The control API below /_sandbox/, with which tests and users control the bank, in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from intergiro_provider.sandbox import consent_page
from intergiro_provider.sandbox.app import CONTROL, App
from intergiro_provider.sandbox.endpoints import LISTS
from intergiro_provider.sandbox.faults import KINDS, FaultError
from intergiro_provider.sandbox.lists import epoch_ms
from intergiro_provider.sandbox.settings import SettingsError


class Wrong(ValueError):
    """A control request that is not valid."""


class Control:
    """The control API of one app.

    :param outage: closes the listener and all connections for a number of seconds.
    """

    def __init__(self, app: App, outage: Callable[[float], None]) -> None:
        self._app, self._outage = app, outage

    def build(self) -> Starlette:
        """The ASGI application."""
        bank = self._app.bank
        routes = [
            self._route("/", "GET", lambda sent: {"what": "Intergiro sandbox: not the bank", "faults": KINDS}),
            self._route("/counters", "GET", lambda sent: bank.counters.as_dict()),
            self._route("/counters", "DELETE", lambda sent: bank.reset_counters()),
            self._route("/settings", "GET", lambda sent: bank.settings.as_dict()),
            self._route("/settings", "PATCH", self._change),
            self._route("/faults", "GET", lambda sent: self._app.faults.describe()),
            self._route("/faults", "POST", lambda sent: self._app.faults.add(sent).describe()),
            self._route("/faults", "DELETE", lambda sent: {"cleared": self._app.faults.clear()}),
            self._route("/faults/{id:int}", "DELETE", lambda sent: {"cleared": self._app.faults.clear(sent["id"])}),
            self._route("/reset", "POST", lambda sent: self._app.reset()),
            self._route("/tokens", "GET", lambda sent: {"tokens": bank.sessions.issued}),
            self._route("/requests", "GET", lambda sent: self._app.log.kept()),
            self._route("/state", "GET", lambda sent: {**bank.sessions.state(), "now": bank.now()}),
            self._route("/end_sessions", "POST", lambda sent: {"ended": bank.sessions.end_sessions()}),
            self._route("/expire_access_tokens", "POST", lambda sent: {"expired": bank.sessions.expire_access()}),
            self._route("/approve_consents", "POST", lambda sent: {"decided": bank.consents.decide_all("approved")}),
            self._route("/refuse_consents", "POST", lambda sent: {"decided": bank.consents.decide_all("refused")}),
            self._route("/approve_batches", "POST", lambda sent: {"decided": bank.payments.decide(approve=True)}),
            self._route("/reject_batches", "POST", lambda sent: {"decided": bank.payments.decide(approve=False)}),
            self._route("/advance", "POST", lambda sent: bank.advance(_number(sent, "seconds"))),
            self._route("/outage", "POST", lambda sent: self._outage(_number(sent, "seconds"))),
            self._route("/settle", "POST", lambda sent: self._settle()),
            self._route("/transactions", "POST", self._add),
            self._route("/transactions", "PATCH", self._alter),
            Route(f"{CONTROL}/records", self._records, methods=["GET"]),
            *consent_page.routes(f"{CONTROL}/consents", bank),
        ]
        return Starlette(routes=routes)

    def _route(self, path: str, method: str, act: Callable[[dict[str, Any]], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                body = await request.body()
                sent = json.loads(body) if body else {}
                if not isinstance(sent, dict):
                    raise Wrong("the body must be a JSON object")
                await self._app.bank.catch_up()
                return JSONResponse(act({**sent, **request.path_params}))
            except (SettingsError, FaultError, Wrong, json.JSONDecodeError) as problem:
                return JSONResponse({"error": str(problem)}, 400)

        return Route(CONTROL + path, endpoint, methods=[method])

    def _change(self, sent: dict[str, Any]) -> dict[str, Any]:
        self._app.bank.change(sent)
        if "kept_requests" in sent:
            self._app.log.keep(self._app.bank.settings.kept_requests)
        return self._app.bank.settings.as_dict()

    def _add(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Book `count` transactions at `created_at` (default: now); `fields` overrides generated fields."""
        bank, api = self._app.bank, sent.get("api", "v3")
        data = bank.data[api]
        created = epoch_ms(sent["created_at"]) if "created_at" in sent else bank.now() * 1000
        if created is None:
            raise Wrong("created_at: must be an ISO 8601 date-time with an offset")
        records = []
        for place in range(int(sent.get("count", 1))):
            account = data.accounts.values[place % len(data.accounts)]
            usual: dict[str, Any] = {
                "type": "bank-transfer",
                "amount": place + 1,
                "currency": account["currency"],
                "status": "pending",
                "account_id": account["id"],
                "reference": f"added {place}",
                "exchange_rate": None,
                "counterparty": {"name": "Ädded"},
            }
            records.append({**usual, **sent.get("fields", {})})
        return {"ids": [record["id"] for record in data.transactions.add(records, int(created))]}

    def _alter(self, sent: dict[str, Any]) -> dict[str, Any]:
        """Change the `fields` of the transactions with these `ids`."""
        bank = self._app.bank
        transactions = bank.data[sent.get("api", "v3")].transactions
        serials = [transactions.serial(each) for each in sent.get("ids", [])]
        if None in serials:
            raise Wrong("ids: there is no such transaction")
        for serial in serials:
            transactions.change(serial or 0, sent.get("fields", {}), round(bank.now() * 1000))
        return {"changed": len(serials)}

    def _settle(self) -> dict[str, Any]:
        """Complete the pending transactions. Generated ones complete only if `settle_after` is set."""
        now = round(self._app.bank.now() * 1000)
        return {"settled": sum(data.transactions.settle_all(now) for data in self._app.bank.data.values())}

    async def _records(self, request: Request) -> Response:
        """Return all records of a list with from <= created_at < to, one per line, in the order of creation."""
        await self._app.bank.catch_up()
        given = request.query_params
        api, _, name = given.get("path", "/v3/transactions").strip("/").partition("/")
        if name not in LISTS.get(api, ()):
            return JSONResponse({"error": "path: not one of the long lists"}, 400)
        found = getattr(self._app.bank.data[api], name)
        bounds: list[float | None] = [None, None]
        for place, name in enumerate(("created_from", "created_to")):
            if name in given and (bound := epoch_ms(given[name])) is None:
                return JSONResponse({"error": f"{name}: must be an ISO 8601 date-time with an offset"}, 400)
            bounds[place] = bound if name in given else None
        span = found.between(*bounds, from_inclusive=True, to_inclusive=False)
        rows = found.rows(range(*span))
        return Response(b"".join(row + b"\n" for row in rows), media_type="application/x-ndjson")


def _number(sent: dict[str, Any], name: str) -> float:
    value = sent.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Wrong(f"{name}: must be a number")
    return float(value)
