# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the bank's endpoints with their middleware, and the control API."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.connections import Connections
from intergiro_provider.sandbox.endpoints import EXCEPTIONS, Endpoints, template
from intergiro_provider.sandbox.faults import Faults
from intergiro_provider.sandbox.middleware import Authorize, InjectFaults, LimitRequests, RecordRequests
from intergiro_provider.sandbox.request_log import RequestLog

CONTROL = "/_sandbox"


class App:
    """Serve the bank; requests below /_sandbox go to `control`.

    :param verbose: print one line per request on stderr.
    """

    def __init__(self, bank: Bank, *, verbose: bool = False) -> None:
        self.bank, self.faults, self.connections = bank, Faults(), Connections()
        self.log = RequestLog(bank.settings.kept_requests, verbose=verbose)
        self.control: ASGIApp | None = None
        routes = Endpoints(bank, self.faults).routes()
        # From the outermost to the innermost.
        middleware = [
            Middleware(RecordRequests, bank, self.log, self.connections, template(routes)),
            Middleware(InjectFaults, bank, self.faults, self.connections),
            Middleware(LimitRequests, bank, self.log),
            Middleware(Authorize, bank),
        ]
        self._endpoints = Starlette(routes=routes, middleware=middleware, exception_handlers=EXCEPTIONS)
        self._endpoints.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            control = self.control if scope["path"].startswith(CONTROL) else None
            await (control or self._endpoints)(scope, receive, send)

    def reset(self) -> None:
        """Reset the bank's state, the faults and the kept requests."""
        self.bank.reset()
        self.faults.clear()
        self.log.keep(self.bank.settings.kept_requests, forget=True)
