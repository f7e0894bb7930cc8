# SPDX-License-Identifier: Apache-2.0
"""The bank itself: which paths there are, who may call them, and what they answer. No wire, no faults."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from intergiro_provider.sandbox.collection import Collection
from intergiro_provider.sandbox.consents import ConsentMissing, Consents
from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.data import Data
from intergiro_provider.sandbox.forms import Bulk, Move, Pay, read
from intergiro_provider.sandbox.lists import Invalid, page
from intergiro_provider.sandbox.payments import Conflict, Payments
from intergiro_provider.sandbox.replies import Reply, Request, as_json, error
from intergiro_provider.sandbox.sessions import Refused, Sessions
from intergiro_provider.sandbox.settings import DATA_SETTINGS, Settings, parse_now

APIS = ("v1", "v3")
LISTS = {"v3": ("individuals", "accounts", "cards", "transactions"), "v1": ("accounts", "transactions")}


@dataclass(frozen=True)
class Route:
    """What a path means: its API, an action, the id in it, and how counters call it."""

    template: str
    api: str = ""
    action: str = ""
    name: str = ""
    id: str = ""
    method: str = "GET"
    role: str = ""

    @property
    def public(self) -> bool:
        """Whether it is called without a bearer."""
        return self.action in ("login", "refresh", "elsewhere")


@lru_cache(maxsize=4096)
def route(path: str) -> Route:
    """What a path means; every path means something, be it `unknown`."""
    api, *rest = path.strip("/").split("/") if path.startswith("/") else [""]
    if api not in APIS:
        return Route("(elsewhere)", api=api, action="elsewhere")
    if path.endswith("/") or "" in rest:
        return Route(f"/{api}/(unknown)", api, "unknown")
    match rest:
        case ["auth", ("login" | "refresh") as name]:
            return Route(path, api, name, method="POST")
        case [name] if name in LISTS[api]:
            return Route(path, api, "list", name, role=_role(name))
        case ["transactions", ("move" | "pay") as name] if api == "v3":
            return Route(path, api, name, method="POST", role="payments")
        case [name, id] if name in LISTS[api]:
            return Route(f"/{api}/{name}/{{id}}", api, "single", name, id, role=_role(name))
        case ["events", id] if api == "v3":
            return Route("/v3/events/{id}", api, "list", "events", id)
        case ["accounts", id, "bank_details"] if api == "v3":
            return Route("/v3/accounts/{id}/bank_details", api, "bank_details", id=id, role="accounts")
        case [("individuals" | "guests") as name, id, "payment_methods"] if api == "v3":
            return Route(f"/v3/{name}/{{id}}/payment_methods", api, "list", f"{name}_methods", id)
        case ["consents", id] if api == "v3":
            return Route("/v3/consents/{id}", api, "consent", id=id, method="POST")
        case ["bulk_payments"] if api == "v1":
            return Route(path, api, "bulk", method="POST", role="payments")
    return Route(f"/{api}/(unknown)", api, "unknown")


def _role(name: str) -> str:
    return name if name in ("transactions", "accounts") else ""


class Bank:
    """The bank's whole state.

    :param clock: epoch seconds; `advance` moves the bank's own time ahead of it.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._ahead = clock, 0.0
        self.initial = self.settings = settings
        self.counters = Counters()
        self.sessions = Sessions(lambda: self.settings, self.counters, self.now)
        self._begin()

    def _begin(self) -> None:
        self.consents = Consents(lambda: self.settings, self.now)
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.payments = Payments(lambda: self.settings, self.counters, self.consents, self.now)
        moment, self._began = parse_now(self.settings.now), self.now()
        self.data = {api: Data(api, self.settings, moment) for api in APIS}
        if self.settings.prepare:
            self.data["v3"].transactions.prepare()

    def now(self) -> float:
        """The bank's time, epoch seconds."""
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at the bank."""
        self._ahead += seconds

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something after so many seconds: before the first request that comes then."""
        self._later.append((self.now() + seconds, act))
        self.catch_up()

    def catch_up(self) -> None:
        """Do what is due."""
        now = self.now()
        due = sorted((each for each in self._later if each[0] <= now), key=itemgetter(0))
        if due:
            self._later = [each for each in self._later if each[0] > now]
        for data in self.data.values():
            data.settle(now - self._began)
        for _, act in due:
            act()

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change settings; where they say how the data are made, the data are made anew.

        :raises SettingsError: nothing was changed.
        """
        self.settings = self.settings.changed(changes)
        if DATA_SETTINGS & set(changes):
            self._begin()

    def reset(self) -> None:
        """Back to the start: settings, data, sessions, blocks, counters and time."""
        self.settings, self._ahead = self.initial, 0.0
        self.sessions.forget()
        self.reset_counters()
        self._begin()

    def reset_counters(self) -> None:
        """Count from zero again."""
        self.counters = self.sessions.counters = self.payments.counters = Counters()

    def refuse(self, request: Request, to: Route) -> Reply | None:
        """Why this request goes no further: no token, no permission, no role, no such path; None where it may."""
        if to.public:
            return None
        roles = self.sessions.authorize(to.api, token) if (token := request.bearer()) else None
        if roles is None:
            self.counters.unauthorized += 1
            return error(401, "unauthorized", "The access token is missing, not valid or expired.")
        if any(request.path.startswith(prefix) for prefix in self.settings.always_401):
            self.counters.unauthorized += 1
            self.counters.permission_401 += 1
            return error(401, "unauthorized", "Not authorized.")
        if to.action == "unknown":
            return error(404, "not_found", "There is no such endpoint.")
        readable = to.action == "consent" and self.settings.consent_readable
        if request.method != to.method and not (readable and request.method == "GET"):
            return error(405, "method_not_allowed", "This method is not allowed.", headers={"allow": to.method})
        if to.role and to.role not in roles:
            self.counters.forbidden += 1
            return error(403, "forbidden", f"The API key has no role for {to.role}.")
        return None

    def answer(self, request: Request, to: Route, *, consent: str = "") -> Reply:
        """Carry out a request that `refuse` lets pass.

        :param consent: the scope of a consent that a person has to give first.
        """
        self.catch_up()
        try:
            if consent:
                self.consents.need(request.path, consent)
            return self._answer(request, to)
        except Invalid as problem:
            return error(400, problem.code, problem.message, problem.field)
        except Refused as problem:
            return error(problem.status, problem.code, problem.message)
        except Conflict as problem:
            return error(409, "conflict", str(problem))
        except ConsentMissing as problem:
            return as_json({"consent": problem.described}, 412)

    def _answer(self, request: Request, to: Route) -> Reply:
        match to.action:
            case "list":
                return self._list(request, to)
            case "login" | "refresh":
                return self._auth(request, to)
            case "single":
                body = getattr(self.data[to.api], to.name).record(to.id)
                return _missing() if body is None else Reply(200, body)
            case "bank_details":
                details = self.data[to.api].bank_details(to.id)
                return _missing() if details is None else as_json(details)
            case "pay":
                return as_json(self.payments.single(read(request.body, Pay), self.data[to.api]))
            case "move":
                return as_json(self.payments.single(read(request.body, Move), self.data[to.api]))
            case "bulk":
                return as_json(self.payments.bulk(read(request.body, Bulk), self.data[to.api]))
            case "consent":
                found = self._consent(request, to.id)
                return _missing() if found is None else as_json(found)
        return _elsewhere(to)

    def _consent(self, request: Request, id: str) -> dict[str, Any] | None:
        if request.method == "GET":
            return self.consents.described(id)
        return_url = _field(request.body, "return_url")
        if not return_url.startswith(("http://", "https://")):
            raise Invalid("return_url", "Must be a URL.")
        return self.consents.method(id, return_url, f"http://{request.headers.get('host', 'localhost')}")

    def _list(self, request: Request, to: Route) -> Reply:
        data = self.data[to.api]
        found: Collection | None
        match to.name:
            case "events":
                found = data.events(to.id)
            case "individuals_methods":
                found = data.individual_payment_methods(to.id)
            case "guests_methods":
                found = data.guest_payment_methods(to.id)
            case name:
                found = getattr(data, name)
        if found is None:
            return _missing()
        made = page(found, request.query, self.settings)
        return Reply(200, made.body, rows=made.rows)

    def _auth(self, request: Request, to: Route) -> Reply:
        if request.method != "POST":
            return error(405, "method_not_allowed", "This method is not allowed.", headers={"allow": "POST"})
        if to.action == "login":
            try:
                key = _field(request.body, "api_key")
            except Invalid:
                self.counters.login_refused += 1
                raise
            return as_json(self.sessions.login(to.api, key))
        try:
            token = _field(request.body, "refresh_token")
        except Invalid:
            self.counters.refresh_refused += 1
            raise
        return as_json(self.sessions.refresh(to.api, token))


def _field(body: bytes, name: str) -> str:
    try:
        sent = json.loads(body)
    except ValueError:
        raise Invalid("", "The body must be JSON.", "not_json") from None
    value = sent.get(name) if isinstance(sent, dict) else None
    if not isinstance(value, str) or not value:
        raise Invalid(name, "Must be a non-empty string.")
    return value


def _missing() -> Reply:
    return error(404, "not_found", "There is no such record.")


def _elsewhere(to: Route) -> Reply:
    if re.fullmatch(r"v[02]", to.api):
        return error(400, "version_too_old", "This version of the API is too old: it is no longer supported.")
    return error(404, "not_found", "There is no such endpoint.")
