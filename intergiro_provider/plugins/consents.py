# SPDX-License-Identifier: Apache-2.0
"""Pages in Airflow's UI (3.1 and later) that send a person to the bank's page, to give consent to a payment.

The URL of the bank's page contains a token. It is requested when the person clicks, and used only for the redirect. It
is never stored. Every process that loads plugins imports this module, so it imports little.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/intergiro"
_app: Any = None


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """Serve the pages. The application is created at the first request."""
    global _app
    if _app is None:
        from intergiro_provider.plugins.consent_pages import build

        _app = build()
    await _app(scope, receive, send)


class IntergiroPlugin(AirflowPlugin):
    """Adds the pages below ``/intergiro``."""

    name = "intergiro"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "Intergiro"}]  # noqa: RUF012 - Airflow's form
