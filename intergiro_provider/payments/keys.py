# SPDX-License-Identifier: Apache-2.0
"""Idempotency keys: the same for every attempt of one payment, different for any two payments.

A key is made from the task instance in Airflow, or from the user's `payment_key`, and never from the request body.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError

NAMESPACE = uuid.UUID("8e0f54a2-2c1f-5d0c-9a8e-6f7f0f3d3c11")
SCOPES = ("run", "dag", "ever")
NO_VALUE = frozenset({"", "none", "null", "nan"})
"""Texts, in lower case, that templates and JSON make from a missing value."""


@dataclass(frozen=True, slots=True)
class PaymentIdentity:
    """What makes a payment one payment: the task instance, or the user's key within its scope.

    :param map_index: the index in a mapped task; -1 if the task is not mapped.
    :param payment_key: the user's name for the payment, such as an invoice id; None: the task instance identifies it.
    :param scope: where `payment_key` is unique: in the ``run``, in the ``dag``, or ``ever``.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    payment_key: str | None = None
    scope: str = "run"

    def parts(self) -> list[Any]:
        """Return the values that the key is made from."""
        if self.payment_key is None:
            return ["task", self.dag_id, self.task_id, self.map_index, self.run_id]
        within = {"run": [self.dag_id, self.run_id], "dag": [self.dag_id], "ever": []}[self.scope]
        return ["key", self.scope, *within, self.payment_key]


def idempotency_key(fingerprint: str, identity: PaymentIdentity) -> str:
    """Return the idempotency key for the bank, a UUID.

    :param fingerprint: a hash of the bank's origin and the API key, so that two companies never share a key.
    """
    return _uuid([fingerprint, *identity.parts()])


def record_name(origin: str, conn_id: str, identity: PaymentIdentity) -> str:
    """Return the name of the payment's record. Unlike the idempotency key, it does not depend on the API key."""
    return _uuid([origin, conn_id, *identity.parts()])


def correlation_id(bulk_key: str, content: Mapping[str, Any], occurrence: int) -> str:
    """Return the id of an item in a bulk payment.

    :param bulk_key: the key of the bulk payment.
    :param content: the item as it is sent.
    :param occurrence: number of earlier items with the same content; 0 for the first.
    """
    return _uuid([bulk_key, content, occurrence])


def check_scope(payment_key: Any, scope: Any, record_path: Any) -> None:
    """Check that the scope is known and has the arguments that it needs.

    :raises IntergiroValueError: names the argument and the remedy.
    """
    if scope not in SCOPES:
        raise IntergiroValueError(f"`payment_scope` is {scope!r}; it must be one of {', '.join(map(repr, SCOPES))}.")
    if scope == "run":
        return
    if payment_key is None:
        raise IntergiroValueError(
            f"`payment_scope` is {scope!r} without `payment_key`. Set `payment_key` to a value that identifies the "
            "payment, such as an invoice id."
        )
    if record_path is None:
        raise IntergiroValueError(
            f"`payment_scope` is {scope!r} without `record_path`. Only a record shows whether an earlier run has sent "
            "the payment. Set `record_path` to a directory that every run can reach."
        )


def check_payment_key(value: Any) -> str | None:
    """Return the user's key as a string; None if there is none.

    :raises IntergiroValueError: it is empty, neither a string nor an int, or what None and NaN render to.
    """
    if value is None:
        return None
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if text.lower() in NO_VALUE:
        shown = repr(value) if isinstance(value, (str, float, bool)) else f"a value of type {type(value).__name__}"
        raise IntergiroValueError(
            f"`payment_key` is {shown}. It must be a string that identifies the payment, such as an invoice id. "
            "Nothing was sent. Check the template that it comes from."
        )
    return text


def _uuid(parts: list[Any]) -> str:
    return str(uuid.uuid5(NAMESPACE, json.dumps(parts, sort_keys=True, ensure_ascii=False)))
