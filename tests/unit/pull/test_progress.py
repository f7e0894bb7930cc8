# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest

from intergiro_provider.pull.progress import Progress

log = logging.getLogger(__name__)


def said(caplog: pytest.LogCaptureFixture, rows: int) -> str:
    now = iter(range(100))
    with caplog.at_level(logging.INFO):
        progress = Progress(log, "transactions", clock=lambda: float(next(now)))
        progress.add(rows)
        progress.summary(rows, parts=rows, stored_bytes=rows)
    return caplog.messages[-1]


def test_one_of_each(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, 1) == "transactions: pulled 1 record from 1 page in 2.0 s, 1 byte in 1 part"


def test_many(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, 1200) == ("transactions: pulled 1,200 records from 1 page in 2.0 s, 1,200 bytes in 1,200 parts")
