# SPDX-License-Identifier: Apache-2.0
"""The targets of links; the system tests check that Airflow shows them."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from intergiro_provider.get_provider_info import get_provider_info
from intergiro_provider.links import intergiro as links
from intergiro_provider.links.intergiro import (
    IntergiroConsentLink,
    IntergiroManifestLink,
    IntergiroPortalLink,
    console_url,
)
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.operators.payments import IntergiroPaymentOperator
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set invalid credentials, to create a client that sends no request."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AIRFLOW_CONN_LAKE": "aws://",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


class TestConsole:
    @pytest.mark.parametrize("scheme", ["s3", "s3a"])
    def test_amazon(self, amazon: pytest.MonkeyPatch, scheme: str) -> None:
        path = ObjectStoragePath(f"{scheme}://{'lake@' if scheme == 's3' else ''}bucket/a b/day=1/_manifest.json")
        assert console_url(path) == (
            "https://s3.console.aws.amazon.com/s3/object/bucket?prefix=a%20b/day%3D1/_manifest.json"
        )

    @pytest.mark.parametrize(
        ("name", "value"), [("AWS_DEFAULT_REGION", "cn-north-1"), ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")]
    )
    def test_stores_that_amazons_console_does_not_show(self, amazon: pytest.MonkeyPatch, name: str, value: str) -> None:
        amazon.setenv(name, value)
        conn_id = f"other_{name.lower()}"
        amazon.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", "aws://")
        assert console_url(ObjectStoragePath(f"s3://{conn_id}@bucket/x")) == ""

    def test_google(self) -> None:
        assert console_url(ObjectStoragePath("gs://conn_id@bucket/a/_manifest.json")) == (
            "https://console.cloud.google.com/storage/browser/_details/bucket/a/_manifest.json"
        )

    @pytest.mark.parametrize("url", ["file:///data/x", "/data/x", "abfs://conn_id@container/x", "hdfs://host/x"])
    def test_nothing_that_a_browser_could_open(self, url: str) -> None:
        assert console_url(ObjectStoragePath(url)) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///data/x", {}),
        (
            "gs://lake/x",
            {"_link_IntergiroManifestLink": "https://console.cloud.google.com/storage/browser/_details/lake/x"},
        ),
    ],
)
def test_only_a_link_that_leads_somewhere_is_stored(url: str, expected: dict[str, str]) -> None:
    stored: dict[str, str] = {}

    class Task:
        def xcom_push(self, key: str, value: str) -> None:
            stored[key] = value

    context: Any = {"ti": Task()}
    assert IntergiroManifestLink.persist(context, ObjectStoragePath(url)) is bool(expected)
    assert stored == expected


@pytest.mark.parametrize(
    ("base_url", "prefix"), [("", ""), ("https://air.example", ""), ("https://air.example/team/", "/team")]
)
def test_the_consent_page_is_below_the_path_of_airflow(
    monkeypatch: pytest.MonkeyPatch, base_url: str, prefix: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    stored: dict[str, Any] = {}

    class Task:
        dag_id, run_id, task_id, map_index = "pay", "manual__2026-01-01T00:00:00+00:00", "pay", -1

        def xcom_push(self, key: str, value: Any) -> None:
            stored[key] = value

    context: Any = {"ti": Task()}
    IntergiroConsentLink.persist(context, "a-consent", None, "intergiro_default")
    page = "/intergiro/consents/pay/manual__2026-01-01T00%3A00%3A00%2B00%3A00/pay/-1"
    assert stored["_link_IntergiroConsentLink"] == prefix + page


def test_the_portal_is_where_the_provider_info_says() -> None:
    [integration] = get_provider_info()["integrations"]
    assert integration["external-doc-url"] == links.PORTAL


def test_all_are_registered_and_stored_under_the_name_that_airflow_looks_for() -> None:
    used = [
        *IntergiroOperator.operator_extra_links, *IntergiroToObjectStorageOperator.operator_extra_links,
        *IntergiroPaymentOperator.operator_extra_links,
    ]  # fmt: skip
    assert {type(link) for link in used} == {IntergiroConsentLink, IntergiroManifestLink, IntergiroPortalLink}
    assert {f"{type(link).__module__}.{type(link).__name__}" for link in used} == set(
        get_provider_info()["extra-links"]
    )
    for link in used:
        assert link.xcom_key == f"_link_{type(link).__name__}"
