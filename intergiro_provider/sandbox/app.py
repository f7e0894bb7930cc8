# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the bank's endpoints behind their middleware, and the control API beside them."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.connections import Connections
from intergiro_provider.sandbox.endpoints import EXCEPTIONS, Endpoints, template
from intergiro_provider.sandbox.faults import Faults
from intergiro_provider.sandbox.middleware import Authorize, Compress, Limit, Misbehave, Record

CONTROL = "/_sandbox"


class App:
    """Serves the bank; requests below /_sandbox go to `control`.

    :param verbose: one line per request on stderr.
    """

    def __init__(self, bank: Bank, *, verbose: bool = False) -> None:
        self.bank, self.faults, self.connections = bank, Faults(), Connections()
        self.control: ASGIApp | None = None
        routes = Endpoints(bank, self.faults).routes()
        endpoints = Starlette(routes=routes, exception_handlers=EXCEPTIONS)
        endpoints.router.redirect_slashes = False
        app: ASGIApp = Authorize(Compress(endpoints, bank), bank)
        app = Misbehave(Limit(app, bank, lambda: self.record.in_flight), bank, self.faults, self.connections)
        self.record = Record(app, bank, self.connections, template(routes), verbose)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_control = self.control is not None and scope["path"].startswith(CONTROL)
            app: Any = self.control if is_control else self.record
            await app(scope, receive, send)

    def reset(self) -> None:
        """Back to the start: the bank, the faults, what was kept of requests."""
        self.bank.reset()
        self.faults.clear()
        self.record.keep(self.bank.settings.kept_requests, forget=True)
