# SPDX-License-Identifier: Apache-2.0
"""A real browser for Airflow's pages, and the screenshots for the documentation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

#: The environment variable with the directory for screenshots; without it they go to a temporary directory.
SCREENSHOTS = "INTERGIRO_SCREENSHOTS"

ROOT = Path(__file__).parents[2]

#: The largest size of a picture in the documentation, in bytes.
HEAVIEST = 150_000

WIDE = {"width": 1280, "height": 720}


def missing(what: str) -> None:
    """Skip the test because a requirement is missing; with CI=true, fail it."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"{what}: required with CI=true")
    pytest.skip(what)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, headless."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no Playwright: it is installed beside Airflow 3.3 only")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("no Chromium: `apt-get install chromium`, or the package of this system")
    # Chromium's own sandbox does not work for root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page in the browser. `received` holds the URL and the body of each response from Airflow's APIs."""

    def __init__(self, browser: Browser, size: dict[str, int] | None = None) -> None:
        """Open an empty page of this size. Each action has a timeout of two minutes."""
        self.page: Page = browser.new_page(viewport=size or WIDE, locale="en-GB", timezone_id="UTC")  # type: ignore[arg-type]
        self.page.set_default_timeout(120_000)
        self.received: list[tuple[str, bytes]] = []
        for place in ("**/api/v2/**", "**/ui/**"):
            self.page.route(place, self._pass_on)

    def _pass_on(self, route: Route) -> None:
        """Forward a response to the page, and store it. The browser keeps only the responses of the current page."""
        from playwright.sync_api import Error

        try:
            response = route.fetch()
            self.received.append((route.request.url, response.body()))
            route.fulfill(response=response)
        except Error:
            if not self.page.is_closed():
                route.abort()


SHORTEN = """directories => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
        for (const directory of directories)
            texts.currentNode.data = texts.currentNode.data.replaceAll(directory + "/", "…/");
}"""
"""Shortens paths of this machine in the text of the page."""


class Pictures:
    """Takes screenshots: for the documentation if `SCREENSHOTS` is set, otherwise for the analysis of a failure."""

    def __init__(self, elsewhere: Path) -> None:
        """Choose the directory.

        :param elsewhere: the directory if `SCREENSHOTS` is not set.
        """
        wanted = os.environ.get(SCREENSHOTS)
        self.directory = Path(wanted) if wanted else elsewhere
        self.directory.mkdir(parents=True, exist_ok=True)

    def take(self, watched: Watched, name: str, of: Locator | None = None, **options: Any) -> None:
        """Take a screenshot of the page, or of a part of it. A picture that is too large is a failure."""
        watched.page.wait_for_load_state("networkidle")
        watched.page.evaluate(SHORTEN, [str(ROOT), tempfile.gettempdir()])
        taken = (of or watched.page).screenshot(path=self.directory / f"{name}.png", animations="disabled", **options)
        assert len(taken) <= HEAVIEST, f"{name}.png has {len(taken):,} bytes: take less of the page"
