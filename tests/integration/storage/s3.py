# SPDX-License-Identifier: Apache-2.0
"""An S3-compatible server (moto's) in a process of its own, on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import requests
from botocore.config import Config

from scripts.processes import free_port
from scripts.services import wait_until
from tests.integration.storage.places import Prefix

REGION = "eu-north-1"
KEY, SECRET = "reader", "not-a-secret"


def client(port: int, service: str = "s3", key: str = KEY, secret: str = SECRET) -> Any:
    """A client of boto3, which the product does not use."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


def connection(port: int, key: str = KEY, secret: str = SECRET, **extra: Any) -> str:
    """An Airflow connection of type `aws` to this port, as the JSON that AIRFLOW_CONN_<ID> takes."""
    described = {"region_name": REGION, "endpoint_url": f"http://127.0.0.1:{port}", **extra}
    return json.dumps({"conn_type": "aws", "login": key, "password": secret, "extra": described})


@dataclass(frozen=True)
class Lake:
    """A server with one bucket."""

    port: int
    client: Any
    bucket: str

    def place(self, prefix: str, bucket: str | None = None) -> Prefix:
        return Prefix(self.client, bucket or self.bucket, prefix)

    def enforce_rights(self, after: float) -> None:
        """Let everything pass for so many requests, and from then on only what IAM allows."""
        requests.post(
            f"http://127.0.0.1:{self.port}/moto-api/reset-auth", data=str(after), timeout=10
        ).raise_for_status()


@contextmanager
def serving() -> Iterator[int]:
    """Its port; the server ends with the block."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert server.poll() is None, "moto's server did not start"
        try:
            return requests.get(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=1).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(answers, 60, "moto's server answers")
        yield port
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
