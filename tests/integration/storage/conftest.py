# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from tests.integration.pulls import bank, said, shared_bank
from tests.integration.storage import s3
from tests.integration.storage.s3 import Lake
from tests.integration.storage.wire import Wire

__all__ = ["bank", "said", "shared_bank"]  # fixtures


@pytest.fixture(scope="session", autouse=True)
def shared_loader() -> Iterator[None]:
    """Load the description of S3 once. Each client would do it again, which takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Start an S3-compatible server for the whole test run, when it is first needed. Return its port."""
    with s3.serving() as port:
        yield port


@pytest.fixture
def lake(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Create a new bucket, and the connection `lake` to it."""
    client = s3.client(s3_port)
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.REGION})
    connect(monkeypatch, s3_port)
    return Lake(s3_port, client, bucket)


@pytest.fixture
def wire(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Start the proxy between the pull and the server."""
    with Wire(lake.port) as wire:
        connect(monkeypatch, wire.port)
        yield wire


def connect(monkeypatch: pytest.MonkeyPatch, port: int, **more: Any) -> None:
    """Set the connection `lake` to this port, and clear the cached file systems."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", s3.connection(port, **more))
    forget_stores(monkeypatch)


def forget_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear the file systems that Airflow caches per process, because each test is another task."""
    try:
        from airflow.sdk.io import store
    except ImportError:
        from airflow.io import store  # type: ignore[no-redef,attr-defined,import-not-found]
    monkeypatch.setattr(store, "_STORE_CACHE", {})
