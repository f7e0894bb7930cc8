# SPDX-License-Identifier: Apache-2.0
"""Incremental pulls with bounds from the run's parameters. The watermark is stored with the asset."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow import __version__
from airflow.providers.common.compat.sdk import Asset, dag

from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

ASSET = Asset("intergiro_test_increments")

if tuple(map(int, __version__.split(".")[:2])) >= (3, 3):

    @dag(
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        params={"target": "", "from": "2000-01-01", "to": ""},
    )
    def increments() -> None:
        IntergiroToObjectStorageOperator(
            task_id="pull",
            endpoint="transactions",
            created_from="{{ params['from'] }}",
            created_to="{{ params['to'] }}",
            watermark=ASSET,
            outlets=[ASSET],
            path="{{ params.target }}",
        )

    increments()
