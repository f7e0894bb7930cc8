# SPDX-License-Identifier: Apache-2.0
"""Checks for IntergiroSensor. The triggerer can import them, because they are installed with this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests


def has_records(response: requests.Response) -> bool:
    """Return whether a list has a record: with filters in the query, whether there is a matching one."""
    page = response.json()
    return bool(page["data"] if isinstance(page, dict) else page)
