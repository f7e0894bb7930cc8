# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.pulls import bank, said, shared_bank
from tests.integration.storage import s3
from tests.integration.storage.s3 import Lake
from tests.integration.storage.wire import Wire

__all__ = ["bank", "said", "shared_bank"]  # fixtures


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """An S3-compatible server for the whole run; started when it is first needed."""
    with s3.serving() as port:
        yield port


@pytest.fixture
def lake(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A bucket of the test's own, and the connection `lake` to it."""
    client = s3.client(s3_port)
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.REGION})
    connect(monkeypatch, s3_port)
    return Lake(s3_port, client, bucket)


@pytest.fixture
def wire(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The network between the pull and the server."""
    with Wire(lake.port) as wire:
        connect(monkeypatch, wire.port)
        yield wire


def connect(monkeypatch: pytest.MonkeyPatch, port: int, **more: Any) -> None:
    """Let the connection `lake` lead there, for a process that has not used it before."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", s3.connection(port, **more))
    forget_stores(monkeypatch)


def forget_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow caches a file system per connection in a process. Each test is a task of its own."""
    try:
        from airflow.sdk.io import store
    except ImportError:
        from airflow.io import store  # type: ignore[no-redef,attr-defined,import-not-found]
    monkeypatch.setattr(store, "_STORE_CACHE", {})
