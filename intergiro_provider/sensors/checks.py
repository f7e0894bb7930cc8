# SPDX-License-Identifier: Apache-2.0
"""Checks for the IntergiroSensor that are there wherever this package is installed, in the triggerer too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests


def has_records(response: requests.Response) -> bool:
    """Whether a list has a record: with filters in the query, whether there is such a record yet."""
    page = response.json()
    return bool(page["data"] if isinstance(page, dict) else page)
