# SPDX-License-Identifier: Apache-2.0
"""The page on which the user approves or refuses a consent. It then redirects to the client's `return_url`."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from intergiro_provider.sandbox.bank import Bank
from intergiro_provider.sandbox.consents import Decision

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Consent - Intergiro sandbox</title>
<meta name="viewport" content="width=device-width">
<style>body {{ font: 16px sans-serif; max-width: 30em; margin: 4em auto }} form {{ display: inline }}
button {{ font: inherit; padding: .5em 1.5em }}</style></head>
<body><h1>Intergiro sandbox</h1>{content}</body></html>"""
_QUESTION = """<p>A client asks for your consent: <strong>{scope}</strong>.</p>
<form method="post" action="{token}/approved"><button id="approve">Approve</button></form>
<form method="post" action="{token}/refused"><button id="refuse">Refuse</button></form>"""
_TOO_LATE = "<p>This consent is already decided, has expired or does not exist.</p>"


def routes(prefix: str, bank: Bank) -> list[Route]:
    """Return the page's routes below `prefix`."""

    async def show(request: Request) -> Response:
        consent = bank.consents.of_token(request.path_params["token"])
        if consent is None or not bank.consents.is_open(consent):
            return _page(_TOO_LATE, 404 if consent is None else 410)
        return _page(_QUESTION.format(scope=escape(consent.scope), token=consent.token))

    def decide(decision: Decision) -> Route:
        async def endpoint(request: Request) -> Response:
            consent = bank.consents.of_token(request.path_params["token"])
            if consent is None or not bank.consents.decide(consent, decision):
                return _page(_TOO_LATE, 404 if consent is None else 410)
            return RedirectResponse(consent.return_url, 303)

        return Route(f"{prefix}/{{token}}/{decision}", endpoint, methods=["POST"])

    return [Route(f"{prefix}/{{token}}", show, methods=["GET"]), decide("approved"), decide("refused")]


def _page(content: str, status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(content=content), status, {"Referrer-Policy": "no-referrer"})
