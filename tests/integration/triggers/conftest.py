# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from intergiro_provider.hooks import intergiro as hooks
from tests.timings import ALONE


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_timings", lambda: ALONE)
