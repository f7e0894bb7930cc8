# SPDX-License-Identifier: Apache-2.0
"""The rights that the consent page requires. In the system tests, all users are admins."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", ""), ("GET", "/returned")], ids=["page", "start", "returned"]
)
def test_a_request_without_login_is_refused(airflow_db: Path, method: str, path: str) -> None:
    pytest.importorskip("airflow.api_fastapi.core_api.security")
    from airflow.api_fastapi.app import create_app
    from starlette.testclient import TestClient

    from intergiro_provider.plugins.consent_pages import build

    create_app(apps="core")  # sets up the auth manager
    response = TestClient(build()).request(method, f"/consents/dag/run/task/-1{path}", follow_redirects=False)
    assert response.status_code == 401
