# SPDX-License-Identifier: Apache-2.0
"""An S3-compatible server (moto) in its own process, on loopback."""

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
    """Return a client of boto3, which the provider does not use."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


def connection(port: int, key: str = KEY, secret: str = SECRET, **extra: Any) -> str:
    """Return an Airflow connection of type `aws` to this port, as JSON for AIRFLOW_CONN_<ID>."""
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
        """After this number of requests, enforce the rights of IAM. Until then, allow everything."""
        requests.post(
            f"http://127.0.0.1:{self.port}/moto-api/reset-auth", data=str(after), timeout=60
        ).raise_for_status()


@contextmanager
def serving() -> Iterator[int]:
    """Start the server for the block, and yield its port."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert server.poll() is None, "moto's server did not start"
        try:
            return requests.get(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=60).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(answers, what="moto's server answers")
        yield port
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
