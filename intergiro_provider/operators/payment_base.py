# SPDX-License-Identifier: Apache-2.0
"""The base of the payment operators: identity and record of a payment, and arguments that Airflow must not store.

Each parse of a DAG file that uses the operators imports this module, so it imports little.
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
    from intergiro_provider.payments.keys import PaymentIdentity
    from intergiro_provider.payments.plan import Payment
    from intergiro_provider.payments.record import Record

log = logging.getLogger(__name__)

NOT_NONE_IF_GIVEN = ("payment_key", "record_path", "currency")
"""Optional arguments that must not render to None: without them, less is checked."""
MAX_DURATION = timedelta(days=3650)
"""Longer durations could leave the range of dates, after the request was sent."""
NOT_GIVEN: Any = ...
"""The default of `approved_plan`. None is refused: an upstream task may have returned it by mistake."""


class Hidden:
    """Holds a rendered argument that Airflow must not store with the task's rendered fields."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


def hidden_field(name: str) -> Any:
    """Return a descriptor for a template field, which keeps the rendered value out of Airflow's database."""

    def read(operator: Any) -> Any:
        return vars(operator).get(f"_{name}_given")

    def write(operator: Any, value: Any) -> None:
        rendered = "_is_initialized" in vars(operator) and value is not None and not isinstance(value, Hidden)
        vars(operator)[f"_{name}_given"] = Hidden(value) if rendered else value

    return property(read, write)


def unhidden(value: Any) -> Any:
    """Return the value of an argument, which may be in a :class:`Hidden`."""
    return value.value if isinstance(value, Hidden) else value


class PaymentOperator(BaseOperator):
    """The base of both payment operators."""

    ui_color = "#f3e3e6"
    operator_extra_links: Any = (IntergiroPortalLink(),)

    payment_key: Any
    payment_scope: str
    record_path: Any
    only_plan: bool
    approved_plan: Any
    _not_none: list[str]
    intergiro_conn_id: str

    def _check(self, **durations: Any) -> None:
        """Check the arguments that are not templated.

        :param durations: arguments that must be a timedelta.
        :raises IntergiroValueError: names the argument and the remedy.
        """
        for name in ("only_plan", "wait_for_consent"):
            value = getattr(self, name, False)
            if not isinstance(value, bool):
                argument = "dry_run" if name == "only_plan" else name
                raise IntergiroValueError(
                    f"`{argument}` is {value!r}. It must be True or False; templates are not rendered there."
                )
        for name, value in durations.items():
            if not isinstance(value, timedelta) or not timedelta(0) <= value <= MAX_DURATION:
                raise IntergiroValueError(
                    f"`{name}` is {value!r}. It must be a timedelta that is not negative, of at most "
                    f"{MAX_DURATION.days} days."
                )
        self._not_none = [name for name in NOT_NONE_IF_GIVEN if getattr(self, name, None) is not None]
        if self.approved_plan is NOT_GIVEN:
            self.approved_plan = None
        else:
            self._not_none.append("approved_plan")
        if self.payment_scope != "run":
            from intergiro_provider.payments.keys import check_scope

            check_scope(self.payment_key, self.payment_scope, self.record_path)

    def _check_rendered(self) -> None:
        """Check that no template or XCom has rendered to None. The task would pay without the argument.

        :raises IntergiroValueError: names the argument.
        """
        if lost := [name for name in self._not_none if getattr(self, name) is None]:
            raise IntergiroValueError(
                f"`{lost[0]}` is given, but its value is None. Nothing was sent. Check the template or the task that "
                "it comes from."
            )

    def _identity(self, context: Context) -> PaymentIdentity:
        """Return what identifies the payment.

        :raises IntergiroValueError: there is no context, or a mapped task needs a `payment_key`.
        """
        from intergiro_provider.payments.keys import PaymentIdentity, check_payment_key

        ti: Any = context.get("ti")
        if ti is None:
            raise IntergiroValueError(
                f"The task {self.task_id} has no Airflow context. Nothing was sent. Run it as a task of a DAG run."
            )
        key = check_payment_key(self.payment_key)
        map_index = getattr(ti, "map_index", -1)
        if key is None and map_index is not None and map_index >= 0 and not has_fixed_order(self, context):
            raise IntergiroValueError(
                f"The mapped task {self.task_id} has no `payment_key`. Its items come from another task. If that task "
                "runs again and returns them in another order, an item could be paid twice. Nothing was sent. Set "
                "`payment_key` to a value that identifies an item, such as an invoice id."
            )
        return PaymentIdentity(
            str(ti.dag_id), str(ti.task_id), str(ti.run_id), -1 if map_index is None else int(map_index), key,
            self.payment_scope,
        )  # fmt: skip

    def _record(self, hook: IntergiroHook, identity: PaymentIdentity, suffix: str = "") -> Record:
        from intergiro_provider.payments.keys import record_name
        from intergiro_provider.payments.record import Record
        from intergiro_provider.pull.directory import Directory

        name = record_name(hook.settings.origin, self.intergiro_conn_id, identity) + suffix
        if self.record_path is None:
            return Record(None, name)
        path = object_path(self.record_path, "`record_path`")
        return Record(Directory(path.fs, path.path), name)

    def _task_fields(self, identity: PaymentIdentity, context: Context, approved_by: Any) -> dict[str, Any]:
        """Return the fields of the record that name the task, its try and the approver."""
        ti: Any = context["ti"]
        return {
            "dag_id": identity.dag_id,
            "task_id": identity.task_id,
            "run_id": identity.run_id,
            "map_index": identity.map_index,
            "try_number": getattr(ti, "try_number", None),
            "payment_key": identity.payment_key,
            "payment_scope": identity.scope,
            "conn_id": self.intergiro_conn_id,
            "approved_by": approved_by,
            "approved_plan": self.approved_plan,
        }


def has_fixed_order(operator: BaseOperator, context: Context) -> bool:
    """Return whether the items of a mapped task are literals in the DAG file, so that their order is fixed."""
    dag: Any = context.get("dag")
    try:
        mapped = dag.get_task(operator.task_id)
        values = mapped._get_specified_expand_input().value
        if mapped.get_closest_mapped_task_group() is not None:
            return False
    except Exception:  # an unmapped task in a mapped group, or no DAG in the context: the order is unknown
        return False
    items = list(values.values()) if isinstance(values, Mapping) else [values]
    return all(isinstance(item, (list, tuple, dict)) and not _has_xcoms(item) for item in items)


def _has_xcoms(value: Any) -> bool:
    """Return whether a literal contains results of other tasks."""
    if isinstance(value, Mapping):
        return any(map(_has_xcoms, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_xcoms, value))
    return hasattr(value, "resolve")


def possibly_sent_since(context: Context, shared: Any = False) -> datetime | None:
    """Return the earliest time at which an earlier attempt may have sent the payment; None: there was no such attempt.

    :param shared: whether another task of the run may send the same payment.
    """
    ti: Any = context["ti"]
    if not shared and int(getattr(ti, "try_number", 1) or 1) <= 1:
        return None
    run: Any = context.get("dag_run")
    names = ["start_date"]
    if getattr(run, "clear_number", 1) != 0:  # a clear changes the start date
        names += ["run_after", "logical_date", "execution_date"]
    moments = [moment for name in names if isinstance(moment := getattr(run, name, None), datetime)]
    return min(moments, default=datetime.now(UTC) - timedelta(days=7))


def key_of_first_try(context: Context, name: str, key: str) -> tuple[str, bool]:
    """Return the idempotency key of the task instance's first try. Airflow 3.3 and later stores it.

    The key of a later try differs if the connection's API key has changed.

    :param name: the payment's name, see :func:`.keys.record_name`.
    :param key: the key that this try has computed.
    :return: the key, and whether it is certain that no earlier try has sent another key.
    """
    store: Any = context.get("task_state_store")
    is_first = possibly_sent_since(context) is None
    if store is None:
        return key, is_first
    try:
        if isinstance(stored := store.get(f"intergiro_payment_{name}"), str):
            return stored, True
        if is_first:
            store.set(f"intergiro_payment_{name}", key)
    except Exception as error:  # a retry then assumes that the key may have changed
        log.warning("The idempotency key could not be stored in Airflow's task state store: %s.", type(error).__name__)
    return key, is_first


def with_account_currency(hook: IntergiroHook, payment: Payment) -> Payment:
    """Return the payment with the currency of its account.

    :raises IntergiroValueError: the account does not exist, or has another currency than the payment.
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
            "them. The bank interprets the amount in the account's currency."
        )
    return replace(payment, currency=currency)


def check_api(hook: IntergiroHook, api: str, other_operator: str) -> None:
    """Check that the connection is for this API.

    :param other_operator: the operator for the other API, for the message.
    :raises IntergiroValueError: the connection is for the other API.
    """
    names = {"3d": "banking as a service", "2d": "business banking"}
    if (given := hook.settings.api) != api:
        raise IntergiroValueError(
            f"The connection {hook.intergiro_conn_id!r} has `api` {given!r} ({names[given]}), but this operator needs "
            f"{api!r} ({names[api]}). Nothing was sent. Use a connection for that API, or use {other_operator}."
        )


def decode(value: Any) -> Any:
    """Return the value of a string that a template has rendered to JSON or to a Python literal; otherwise `value`."""
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
    """Return a path on an object store or a local disk.

    :param name: the argument's name in a message.
    :raises IntergiroValueError: it is not a URL and not an absolute path.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    text = str(location).strip()
    if "://" not in text and not text.startswith("/"):
        raise IntergiroValueError(
            f"{name} is neither a URL nor an absolute path. Nothing was sent. Give one of them, such as "
            "s3://conn_id@bucket/directory."
        )
    return ObjectStoragePath(text)
