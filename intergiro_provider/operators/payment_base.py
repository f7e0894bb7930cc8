# SPDX-License-Identifier: Apache-2.0
"""What the payment operators share: where a payment stands, its record, and arguments that Airflow must not store.

A light module, as the operators are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from intergiro_provider.exceptions import IntergiroNotFound, IntergiroValueError
from intergiro_provider.links.intergiro import IntergiroPortalLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.payments.keys import Position
    from intergiro_provider.payments.plan import Payment
    from intergiro_provider.payments.record import Record

log = logging.getLogger(__name__)


class Hidden:
    """A rendered argument that Airflow must not store with the task's rendered fields."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


def hidden_field(name: str) -> Any:
    """Return a template field whose rendered value is kept out of Airflow's database."""

    def read(operator: Any) -> Any:
        return vars(operator).get(f"_{name}_given")

    def write(operator: Any, value: Any) -> None:
        rendered = "_is_made" in vars(operator) and value is not None and not isinstance(value, Hidden)
        vars(operator)[f"_{name}_given"] = Hidden(value) if rendered else value

    return property(read, write)


def shown(value: Any) -> Any:
    """Return the value of an argument that may be hidden."""
    return value.value if isinstance(value, Hidden) else value


class PaymentOperator(BaseOperator):
    """What both operators share: where the payment stands, and its record."""

    ui_color = "#f3e3e6"
    operator_extra_links: Any = (IntergiroPortalLink(),)

    payment_key: Any
    payment_scope: str
    record_path: Any
    intergiro_conn_id: str

    def _check_scope(self) -> None:
        if self.payment_scope != "run":
            from intergiro_provider.payments.keys import check_scope

            check_scope(self.payment_key, self.payment_scope, self.record_path)

    def _position(self, context: Context) -> Position:
        from intergiro_provider.payments.keys import Position, check_payment_key

        ti: Any = context.get("ti")
        if ti is None:
            raise IntergiroValueError(
                f"The task {self.task_id} can pay only as a task of a DAG run: it has no context."
            )
        key = check_payment_key(self.payment_key)
        map_index = getattr(ti, "map_index", -1)
        if key is None and map_index is not None and map_index >= 0 and not has_fixed_order(self, context):
            raise IntergiroValueError(
                f"The mapped task {self.task_id} has no `payment_key`. Its items come from another task, whose next "
                "run may bring them in another order, and then an item could be paid twice. Set `payment_key` to what "
                "identifies an item, such as an invoice id. Nothing was sent."
            )
        return Position(
            str(ti.dag_id), str(ti.task_id), str(ti.run_id), -1 if map_index is None else int(map_index), key,
            self.payment_scope,
        )  # fmt: skip

    def _record(self, hook: IntergiroHook, position: Position, suffix: str = "") -> Record:
        from intergiro_provider.payments.keys import record_name
        from intergiro_provider.payments.record import Record
        from intergiro_provider.pull.directory import Directory

        name = record_name(hook.settings.origin, self.intergiro_conn_id, position) + suffix
        if self.record_path is None:
            return Record(None, name)
        path = object_path(self.record_path, "`record_path`")
        return Record(Directory(path.fs, path.path), name)

    def _described(self, position: Position, context: Context, approved_by: Any, approved_plan: Any) -> dict[str, Any]:
        """Return what the record says about where the payment comes from."""
        ti: Any = context["ti"]
        return {
            "dag_id": position.dag_id,
            "task_id": position.task_id,
            "run_id": position.run_id,
            "map_index": position.map_index,
            "try_number": getattr(ti, "try_number", None),
            "payment_key": position.payment_key,
            "payment_scope": position.scope,
            "conn_id": self.intergiro_conn_id,
            "approved_by": approved_by,
            "approved_plan": approved_plan,
        }


def has_fixed_order(operator: BaseOperator, context: Context) -> bool:
    """Return whether the items of a mapped task stand in the DAG file."""
    dag: Any = context.get("dag")
    try:
        mapped = dag.get_task(operator.task_id)
        values = mapped._get_specified_expand_input().value
        if mapped.get_closest_mapped_task_group() is not None:
            return False
    except Exception:  # an unmapped task in a mapped group, or no DAG at hand: nothing is known about the order
        return False
    items = list(values.values()) if isinstance(values, Mapping) else [values]
    return all(isinstance(item, (list, tuple, dict)) and not _refers(item) for item in items)


def _refers(value: Any) -> bool:
    """Return whether a literal holds results of other tasks."""
    if isinstance(value, Mapping):
        return any(map(_refers, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_refers, value))
    return hasattr(value, "resolve")


def earlier_since(context: Context, shared: Any = False) -> datetime | None:
    """Return when an earlier try of this task instance may have begun; None in its first try.

    :param shared: another task of the run may have begun the same payment.
    """
    ti: Any = context["ti"]
    if not shared and int(getattr(ti, "try_number", 1) or 1) <= 1:
        return None
    run: Any = context.get("dag_run")
    names = ["start_date"]
    if getattr(run, "clear_number", 1) != 0:  # a clear sets a new start
        names += ["run_after", "logical_date", "execution_date"]
    moments = [moment for name in names if isinstance(moment := getattr(run, name, None), datetime)]
    return min(moments, default=datetime.now(UTC) - timedelta(days=7))


def remembered_key(context: Context, name: str, key: str) -> tuple[str, bool]:
    """Return the key of the task instance's first try, which Airflow keeps from 3.3 on, even when the API key changes.

    :param name: the payment's, see :func:`.keys.record_name`.
    :param key: the key that this try has computed.
    :return: the key, and whether no earlier try has sent another one.
    """
    store: Any = context.get("task_state_store")
    is_first = earlier_since(context) is None
    if store is None:
        return key, is_first
    try:
        if isinstance(stored := store.get(f"intergiro_payment_{name}"), str):
            return stored, True
        if is_first:
            store.set(f"intergiro_payment_{name}", key)
    except Exception as error:  # a retry then takes its key for one that may have changed
        log.warning("The idempotency key could not be kept in Airflow's state store: %s.", type(error).__name__)
    return key, is_first


def in_currency_of_account(hook: IntergiroHook, payment: Payment) -> Payment:
    """Return the payment with the currency of its account, which must be the stated one.

    :raises IntergiroValueError: the account has another currency.
    """
    from dataclasses import replace

    from intergiro_provider.hooks.intergiro import IntergiroHook

    reader = IntergiroHook(intergiro_conn_id=hook.intergiro_conn_id)
    try:
        account = reader.run(f"accounts/{payment.account_id}").json()
    except IntergiroNotFound:
        account = next((a for a in reader.iter_records("accounts") if a.get("id") == payment.account_id), None)
    currency = str((account or {}).get("currency") or "").upper()
    if not currency:
        raise IntergiroValueError("`account_id` is not an account of this connection. Nothing was sent.")
    if payment.currency not in (None, currency):
        raise IntergiroValueError(
            f"`currency` is {payment.currency!r}, but the account is in {currency}. Nothing was sent. Correct one of "
            "them: the bank takes the amount in the account's currency."
        )
    return replace(payment, currency=currency)


def check_api(hook: IntergiroHook, api: str, instead: str) -> None:
    """Refuse a connection for the other API.

    :raises IntergiroValueError: names the operator for it.
    """
    if hook.settings.api != api:
        raise IntergiroValueError(
            f"The connection {hook.intergiro_conn_id!r} is for the {hook.settings.api} API, and this operator needs "
            f"`api` {api!r}. Use another connection, or {instead}. Nothing was sent."
        )


def decoded(value: Any) -> Any:
    """Return an argument that a template has rendered to JSON, or to a dict's repr, as the dict."""
    if not isinstance(value, str):
        return value
    import ast
    import json

    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value


def object_path(location: Any, name: str) -> Any:
    """Return a place on an object store or a local disk.

    :raises IntergiroValueError: it is not a URL and not an absolute path.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    text = str(location).strip()
    if "://" not in text and not text.startswith("/"):
        raise IntergiroValueError(
            f"{name} is {text[:40]!r}; it must be a URL such as s3://conn_id@bucket/directory, or an absolute path."
        )
    return ObjectStoragePath(text)
