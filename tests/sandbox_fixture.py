# SPDX-License-Identifier: Apache-2.0
"""The `sandbox` fixture: a fresh Intergiro look-alike for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from intergiro_provider.sandbox import Sandbox


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with the documented defaults.

    For other settings: `@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.0}], indirect=True)`.
    """
    with Sandbox(**getattr(request, "param", {})) as bank:
        yield bank
