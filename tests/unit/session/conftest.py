# SPDX-License-Identifier: Apache-2.0
"""The protocol under test; :mod:`.test_mutants` runs some tests with mutants of it."""

from __future__ import annotations

import pytest

from tests.unit.session.actors import PRODUCTION, Variant

_noticed: dict[str, str] = {}


@pytest.fixture
def variant() -> Variant:
    """Return the production protocol."""
    return PRODUCTION


@pytest.fixture
def mutants_noticed() -> dict[str, str]:
    """Return the table of mutants, which is printed at the end."""
    return _noticed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _noticed:
        terminalreporter.section("mutants of the session protocol: noticed by")
        for name, by in _noticed.items():
            terminalreporter.write_line(f"{name:36} {by}")
