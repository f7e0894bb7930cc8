# SPDX-License-Identifier: Apache-2.0
"""Pages in Airflow's UI (3.1 and later) that lead a person to the bank to give consent to a payment.

The address of the bank's page holds a token. It is asked for when the person clicks, goes into the redirect, and is
stored nowhere. A light module: every process that loads plugins imports it.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/intergiro"
_app: Any = None


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """Serve the pages; they are built at the first request."""
    global _app
    if _app is None:
        from intergiro_provider.plugins.consent_pages import build

        _app = build()
    await _app(scope, receive, send)


class IntergiroPlugin(AirflowPlugin):
    """Adds the pages below ``/intergiro``."""

    name = "intergiro"
    fastapi_apps = [{"app": pages, "url_prefix": PREFIX, "name": "Intergiro"}]  # noqa: RUF012 - Airflow's form
