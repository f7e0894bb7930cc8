# SPDX-License-Identifier: Apache-2.0
"""A real browser that looks at Airflow's pages, and the pictures that it takes of them for the documentation."""

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

#: Where pictures go that are to be kept; without it they go to the test's own directory.
SCREENSHOTS = "INTERGIRO_SCREENSHOTS"

ROOT = Path(__file__).parents[2]

#: What one picture of the documentation may weigh, in bytes.
HEAVIEST = 150_000

WIDE = {"width": 1280, "height": 720}


def missing(what: str) -> None:
    """Skip the test for want of this; a failure where everything has to be there."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"{what}: CI has to have it")
    pytest.skip(what)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no Playwright: it is installed beside Airflow 3.3 only")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("no Chromium: `apt-get install chromium`, or whatever this system calls it")
    # Chromium's own sandbox does not work for root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page, and the address and body of every answer that it had from Airflow's APIs: `received`."""

    def __init__(self, browser: Browser, size: dict[str, int] | None = None) -> None:
        """Open an empty page of this size; nobody waits longer than a minute for anything on it."""
        self.page: Page = browser.new_page(viewport=size or WIDE, locale="en-GB", timezone_id="UTC")  # type: ignore[arg-type]
        self.page.set_default_timeout(60_000)
        self.received: list[tuple[str, bytes]] = []
        for place in ("**/api/v2/**", "**/ui/**"):
            self.page.route(place, self._pass_on)

    def _pass_on(self, route: Route) -> None:
        """Hand on an answer and keep it: later the browser would have forgotten those of the pages before."""
        from playwright.sync_api import Error

        try:
            answer = route.fetch()
            self.received.append((route.request.url, answer.body()))
            route.fulfill(response=answer)
        except Error:
            if not self.page.is_closed():
                route.abort()


SHORTEN = """directories => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
        for (const directory of directories)
            texts.currentNode.data = texts.currentNode.data.replaceAll(directory + "/", "…/");
}"""
"""Shortens paths of this machine, which mean nothing to a reader."""


class Pictures:
    """Takes pictures, into the documentation if it was asked to, else to where a look at them helps after a failure."""

    def __init__(self, elsewhere: Path) -> None:
        """Take the directory for pictures that nobody has asked for."""
        wanted = os.environ.get(SCREENSHOTS)
        self.directory = Path(wanted) if wanted else elsewhere
        self.directory.mkdir(parents=True, exist_ok=True)

    def take(self, watched: Watched, name: str, of: Locator | None = None, **options: Any) -> None:
        """Take one of the page, or of a part of it, and refuse one that is too heavy for a repository."""
        watched.page.wait_for_load_state("networkidle")
        watched.page.evaluate(SHORTEN, [str(ROOT), tempfile.gettempdir()])
        taken = (of or watched.page).screenshot(path=self.directory / f"{name}.png", animations="disabled", **options)
        assert len(taken) <= HEAVIEST, f"{name}.png has {len(taken):,} bytes: take less of the page"
