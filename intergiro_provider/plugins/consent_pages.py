# SPDX-License-Identifier: Apache-2.0
"""The pages of :mod:`.consents`, which start a consent and to which the person returns. They require edit rights."""

from __future__ import annotations

import html
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.links.intergiro import CONSENT_KEY, airflow_url, consent_path
from intergiro_provider.triggers.payments import consent_variable

TASK = "/consents/{dag_id}/{run_id}/{task_id}/{map_index}"
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:38rem;margin:4rem auto;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1.2rem;border:0;border-radius:.4rem;background:#0b6e4f;color:#fff;cursor:pointer}}
dt{{color:#666}}dd{{margin:0 0 .6rem}}</style>
<h1>{title}</h1>{body}</html>"""

Allowed = Depends(requires_access_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE))


def build() -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Intergiro", openapi_url=None, docs_url=None, redoc_url=None)
    # `response_model=None`: otherwise FastAPI uses the return types as models.
    app.get(TASK, dependencies=[Allowed], response_model=None)(show)
    app.post(TASK, dependencies=[Allowed], response_model=None)(start)
    app.get(f"{TASK}/returned", dependencies=[Allowed], response_model=None)(returned)
    return app


def consent_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    """Return the consent and the connection id that the task has stored in an XCom."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        row = session.scalars(
            select(XComModel).where(
                XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.task_id == task_id,
                XComModel.map_index == map_index, XComModel.key == CONSENT_KEY,
            )
        ).first()  # fmt: skip
        content = XComModel.deserialize_value(row) if row is not None else None
    if not isinstance(content, dict) or not content.get("consent_id"):
        raise HTTPException(404, "This task does not wait for a consent.")
    return content


Consent = Annotated[dict[str, Any], Depends(consent_of)]


def show(dag_id: str, task_id: str, consent: Consent) -> HTMLResponse:
    """Show the DAG, the task and the expiry of the consent, and a button that starts it."""
    expires = consent.get("expires_at") or "the bank does not say"
    facts = {"DAG": dag_id, "Task": task_id, "Open until": expires}
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
    body = (
        f"<p>A payment waits for your consent.</p><dl>{listed}</dl>"
        '<form method="post"><button type="submit">Continue at Intergiro</button></form>'
    )
    return _page("Consent to a payment", body)


def start(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: int, consent: Consent
) -> RedirectResponse | HTMLResponse:
    """Start the consent at the bank, and redirect there."""
    from intergiro_provider.hooks.intergiro import IntergiroHook

    # A proxy may not pass on the scheme, host and path that the browser uses.
    back = f"{str(request.url).partition('?')[0]}/returned"
    if (url := airflow_url()).startswith(("https://", "http://")):
        back = f"{url.rstrip('/')}{consent_path(dag_id, run_id, task_id, map_index)}/returned"
    hook = IntergiroHook(str(consent.get("conn_id")), method="POST")
    try:
        content = hook.run(f"consents/{consent['consent_id']}", {"return_url": back}).json()
        target = str(content["method"]["redirect_url"])
    except (IntergiroError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, IntergiroError) else "The bank's response contains no page."
        return _page("The consent could not be started", f"<p>{html.escape(reason)}</p>", 502)
    if not target.startswith(("https://", "http://")):
        return _page("The consent could not be started", "<p>The bank's response contains no page.</p>", 502)
    return RedirectResponse(target, 303, headers=HEADERS)


def returned(consent: Consent) -> HTMLResponse:
    """Store that the person has returned. The task then reads the decision from the bank."""
    from airflow.models.variable import Variable

    Variable.set(consent_variable(str(consent["consent_id"])), "returned")
    return _page("Thank you", "<p>The task continues by itself. You can close this page.</p>")


def _page(title: str, body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=title, body=body), status, headers=HEADERS)
