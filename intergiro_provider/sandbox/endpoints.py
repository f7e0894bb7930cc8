# SPDX-License-Identifier: Apache-2.0
"""The bank's endpoints: their paths, the role that each needs, and their responses."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.collection import Collection
from intergiro_provider.sandbox.consents import ConsentMissing
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.faults import Faults
from intergiro_provider.sandbox.forms import Bulk, ConsentMethod, Login, Move, Pay, Refresh, read
from intergiro_provider.sandbox.lists import Invalid, page
from intergiro_provider.sandbox.payments import Conflict
from intergiro_provider.sandbox.responses import as_json, error
from intergiro_provider.sandbox.sessions import Refused

APIS = ("v1", "v3")
LISTS = {"v3": ("transactions", "accounts", "individuals", "cards"), "v1": ("transactions", "accounts")}
ROLES_OF_LISTS = ("accounts", "transactions")

Handler: TypeAlias = Callable[[Data, Request, bytes], Response]


class Endpoints:
    """The endpoints of one bank."""

    def __init__(self, bank: Bank, faults: Faults) -> None:
        self._bank, self._faults = bank, faults

    def routes(self) -> list[Route]:
        """Return the routes of all endpoints."""
        return [
            *(route for api in reversed(APIS) for route in self._of_both(api)),
            self._post("/v3/transactions/pay", self._pay, role="payments"),
            self._post("/v3/transactions/move", self._move, role="payments"),
            self._post("/v1/bulk_payments", self._bulk, role="payments"),
            self._post("/v3/consents/{id}", self._consent_method),
            self._get("/v3/consents/{id}", self._consent),
            self._get("/v3/accounts/{id}/bank_details", self._bank_details, role="accounts"),
            self._list("/v3/events/{id}", lambda data, of: data.events(of)),
            self._list("/v3/individuals/{id}/payment_methods", lambda data, of: data.individual_payment_methods(of)),
            self._list("/v3/guests/{id}/payment_methods", lambda data, of: data.guest_payment_methods(of)),
            *(self._single(api, name) for api in APIS for name in LISTS[api]),
        ]

    def _of_both(self, api: str) -> list[Route]:
        def of(name: str) -> Callable[[Data, str], Collection | None]:
            return lambda data, _: getattr(data, name)

        return [
            *(self._list(f"/{api}/{name}", of(name), role=_role(name)) for name in LISTS[api]),
            self._post(f"/{api}/auth/login", self._login, public=True),
            self._post(f"/{api}/auth/refresh", self._refresh, public=True),
        ]

    # Kinds of routes

    def _get(self, path: str, handle: Handler, *, role: str = "") -> Route:
        async def endpoint(request: Request) -> Response:
            self._admit(request, role)
            return handle(self._data(request), request, b"")

        return Route(path, endpoint, methods=["GET"])

    def _post(self, path: str, handle: Handler, *, role: str = "", public: bool = False) -> Route:
        async def endpoint(request: Request) -> Response:
            if not public:
                self._admit(request, role)
            return handle(self._data(request), request, await request.body())

        return Route(path, endpoint, methods=["POST"])

    def _list(self, path: str, find: Callable[[Data, str], Collection | None], *, role: str = "") -> Route:
        def handle(data: Data, request: Request, _: bytes) -> Response:
            found = find(data, request.path_params.get("id", ""))
            if found is None:
                raise HTTPException(404)
            query = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
            made = page(found, query, self._bank.settings)
            self._bank.counters.rows += made.rows
            return Response(made.body, media_type="application/json")

        return self._get(path, handle, role=role)

    def _single(self, api: str, name: str) -> Route:
        def handle(data: Data, request: Request, _: bytes) -> Response:
            body = getattr(data, name).record(request.path_params["id"])
            if body is None:
                raise HTTPException(404)
            return Response(body, media_type="application/json")

        return self._get(f"/{api}/{name}/{{id}}", handle, role=_role(name))

    def _admit(self, request: Request, role: str) -> None:
        """Refuse a request whose key lacks the role, or for which a fault requires a consent."""
        if role and role not in request.scope["sandbox.roles"]:
            self._bank.counters.forbidden += 1
            raise HTTPException(403, f"The API key has no role for {role}.")
        guard = self._faults.guard(request.method, request.scope["path"]) if self._faults else None
        if guard is not None:
            self._bank.counters.faults[guard.kind] += 1
            self._bank.consents.need(request.scope["path"], guard.params["scope"])

    def _data(self, request: Request) -> Data:
        return self._bank.data[_api(request)]

    # Handlers

    def _login(self, _: Data, request: Request, body: bytes) -> Response:
        try:
            key = read(body, Login).api_key
        except Invalid:
            self._bank.counters.login_refused += 1
            raise
        return as_json(self._bank.sessions.login(_api(request), key))

    def _refresh(self, _: Data, request: Request, body: bytes) -> Response:
        try:
            token = read(body, Refresh).refresh_token
        except Invalid:
            self._bank.counters.refresh_refused += 1
            raise
        return as_json(self._bank.sessions.refresh(_api(request), token))

    def _pay(self, data: Data, _: Request, body: bytes) -> Response:
        return as_json(self._bank.payments.single(read(body, Pay), data))

    def _move(self, data: Data, _: Request, body: bytes) -> Response:
        return as_json(self._bank.payments.single(read(body, Move), data))

    def _bulk(self, data: Data, _: Request, body: bytes) -> Response:
        return as_json(self._bank.payments.bulk(read(body, Bulk), data))

    def _consent_method(self, _: Data, request: Request, body: bytes) -> Response:
        return_url = read(body, ConsentMethod).return_url
        origin = f"http://{request.headers.get('host', 'localhost')}"
        return _found(self._bank.consents.method(request.path_params["id"], return_url, origin))

    def _consent(self, _: Data, request: Request, __: bytes) -> Response:
        if not self._bank.settings.consent_readable:
            raise HTTPException(405, headers={"allow": "POST"})
        return _found(self._bank.consents.described(request.path_params["id"]))

    def _bank_details(self, data: Data, request: Request, _: bytes) -> Response:
        return _found(data.bank_details(request.path_params["id"]))


def template(routes: list[Route]) -> Callable[[str], str]:
    """Return the name of a path in the counters: `/v3/transactions/{id}`."""

    @lru_cache(maxsize=4096)
    def of(path: str) -> str:
        for route in routes:
            if route.path_regex.match(path):
                return route.path_format
        api = path.split("/")[1] if path.startswith("/") else ""
        return f"/{api}/(unknown)" if api in APIS else "(elsewhere)"

    return of


def _api(request: Request) -> str:
    path: str = request.scope["path"]
    return path.split("/", 2)[1]


def _role(name: str) -> str:
    return name if name in ROLES_OF_LISTS else ""


def _found(value: Any) -> Response:
    if value is None:
        raise HTTPException(404)
    return as_json(value)


async def _http(request: Request, problem: Any) -> Response:
    status = problem.status_code
    if status == 404 and re.match(r"/v[02](/|$)", request.scope["path"]):
        return error(400, "version_too_old", "This version of the API is too old: it is no longer supported.")
    codes = {403: "forbidden", 404: "not_found", 405: "method_not_allowed"}
    return error(status, codes[status], problem.detail, headers=problem.headers)


async def _invalid(request: Request, problem: Any) -> Response:
    return error(400, problem.code, problem.message, problem.field)


async def _refused(request: Request, problem: Any) -> Response:
    return error(problem.status, problem.code, problem.message)


async def _conflict(request: Request, problem: Any) -> Response:
    return error(409, "conflict", str(problem))


async def _consent_missing(request: Request, problem: Any) -> Response:
    return as_json({"consent": problem.described}, 412)


EXCEPTIONS: dict[Any, Any] = {
    HTTPException: _http,
    Invalid: _invalid,
    Refused: _refused,
    Conflict: _conflict,
    ConsentMissing: _consent_missing,
}
"""The response to each exception of an endpoint."""
