# SPDX-License-Identifier: Apache-2.0
"""Check whether an XCom can hold a result. Airflow's own error would not say that the request was sent."""

from __future__ import annotations

import math
from typing import Any

from airflow.providers.common.compat.sdk import conf

from intergiro_provider.exceptions import looks_like_an_id
from intergiro_provider.pull.surrogates import can_be_encoded

_LIMIT = 2**63


def what_xcom_cannot_hold(value: Any) -> str | None:
    """Return which value in a result Airflow cannot store, and where it is; None if Airflow can store all.

    Airflow 3 sends results to its API server as MessagePack and stores them as JSON. JSON in PostgreSQL has no NUL
    character and no lone surrogate. Airflow 2, and an XCom backend of the deployment, accept more.
    """
    if not conf.get("core", "xcom_backend", fallback="BaseXCom").endswith("BaseXCom"):
        return None
    try:
        from airflow.sdk.bases.xcom import BaseXCom
    except ImportError:  # Airflow 2
        from airflow.models.xcom import BaseXCom as BaseXCom2

        return _unserializable(BaseXCom2, value, "")
    return _problem(BaseXCom, value, "")


def _problem(xcom: Any, value: Any, where: str) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return f"a NUL character{_at(where)}"
        if not value.isascii() and not can_be_encoded(value):
            return f"a lone surrogate{_at(where)}"
    elif isinstance(value, bool) or value is None:
        return None
    elif isinstance(value, int):
        if not -_LIMIT <= value < 2 * _LIMIT:
            return f"an integer of more than 64 bits{_at(where)}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return f"{value}, which is not JSON,{_at(where)}"
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{where}.{key}" if isinstance(key, str) and looks_like_an_id(key) else f"{where}.…"
            if problem := _problem(xcom, str(key), inner) or _problem(xcom, item, inner):
                return problem
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if problem := _problem(xcom, item, f"{where}[{index}]"):
                return problem
    else:
        return _unserializable(xcom, value, where)
    return None


def _unserializable(xcom: Any, value: Any, where: str) -> str | None:
    try:
        xcom.serialize_value(value)
    except Exception:  # the serializers of the types raise different errors, and their texts can quote the value
        return f"an object of type {type(value).__name__}{_at(where)}"
    return None


def _at(where: str) -> str:
    return f" at {where.lstrip('.')}" if where else ""
