# SPDX-License-Identifier: Apache-2.0
"""An asset in Dagster's UI. INTERGIRO_SCREENSHOTS names the directory for the documentation's picture."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from intergiro_provider.sandbox import Sandbox
from tests.dagster.conftest import ROOT, dagster
from tests.system.browser import chromium

pytestmark = pytest.mark.integration

MODULE = "tests.dagster.projects.bank"


@pytest.mark.parametrize("dagster_home", ["sqlite"], indirect=True)
@pytest.mark.parametrize("sandbox", [{"process": True}], indirect=True)
def test_the_assets_page_shows_what_came(
    sandbox: Sandbox, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.environ.get("INTERGIRO_SCREENSHOTS")
    lake = "/tmp/lake" if folder else str(tmp_path / "lake")
    for name, value in (
        ("LAKE", lake),
        ("BANK", sandbox.url),
        ("INTERGIRO_API_KEY", sandbox.api_key),
    ):
        monkeypatch.setenv(name, value)
    run = dagster("asset", "materialize", "--select", "*", module=MODULE)
    output = run.communicate()[0]
    assert run.returncode == 0, output[-3000:]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dagster_webserver", "-m", MODULE, "-h", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1500):
            try:
                urllib.request.urlopen(f"{url}/server_info", timeout=60).close()
                break
            except OSError:
                time.sleep(0.2)
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(60_000)
            page.goto(f"{url}/assets/intergiro/transactions")
            page.get_by_role("button", name="Skip").click()
            page.get_by_text("created_at").first.wait_for()
            page.goto(f"{url}/assets/intergiro/transactions?view=events")
            for text in ("dagster/row_count", "2000", "_manifest.json", "pull_id"):
                page.get_by_text(text).first.wait_for()
            assert sandbox.api_key not in page.content()
            page.screenshot(path=ROOT / folder / "dagster-asset.png" if folder else tmp_path / "dagster-asset.png")
    finally:
        server.terminate()
        server.wait(120)
