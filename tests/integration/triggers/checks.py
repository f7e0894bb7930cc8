# SPDX-License-Identifier: Apache-2.0
"""Checks that triggers import."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException


def is_completed(response: Any) -> bool:
    return bool(response.json()["status"] == "completed")


def wants_context(response: Any, ti: Any) -> bool:
    return ti is not None


def quotes(response: Any) -> bool:
    raise KeyError(response.text)


def gives_up(response: Any) -> bool:
    raise AirflowFailException(response.text)


not_a_function = 7
