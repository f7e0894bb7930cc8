# SPDX-License-Identifier: Apache-2.0
"""The `sandbox` fixture: a new sandbox for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from intergiro_provider.sandbox import Sandbox


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with the documented defaults, but an API key of its own.

    The kernel can assign a port again. With the same key, the session of an earlier test's sandbox would be used here.

    For other settings: `@pytest.mark.parametrize("sandbox", [{"access_token_life": 2.0}], indirect=True)`.
    """
    with Sandbox(**{"api_keys": (str(uuid.uuid4()),), **getattr(request, "param", {})}) as bank:
        yield bank
