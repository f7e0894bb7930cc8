# SPDX-License-Identifier: Apache-2.0
"""Pay through Intergiro, each payment once.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests is imported when
the task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from intergiro_provider.links.intergiro import IntergiroPortalLink
from intergiro_provider.retry_policy import wait_as_told
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.payments.keys import Position
    from intergiro_provider.payments.plan import Payment
    from intergiro_provider.payments.record import Record
    from intergiro_provider.payments.single import SinglePayment


class Hidden:
    """A rendered argument that Airflow must not store with the task's rendered fields."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


def _hidden(name: str) -> Any:
    """Return a template field whose rendered value is kept out of Airflow's database."""

    def read(operator: Any) -> Any:
        return vars(operator).get(f"_{name}_given")

    def write(operator: Any, value: Any) -> None:
        rendered = "_is_made" in vars(operator) and value is not None and not isinstance(value, Hidden)
        vars(operator)[f"_{name}_given"] = Hidden(value) if rendered else value

    return property(read, write)


def _shown(value: Any) -> Any:
    return value.value if isinstance(value, Hidden) else value


class _PaymentBase(BaseOperator):
    """What both operators share: where the payment stands, and its record."""

    ui_color = "#f3e3e6"
    operator_extra_links = (IntergiroPortalLink(),)

    payment_key: Any
    payment_scope: str
    record_path: Any
    intergiro_conn_id: str

    def _position(self, context: Context) -> Position:
        from intergiro_provider.exceptions import IntergiroValueError
        from intergiro_provider.payments.keys import Position, check_payment_key

        ti: Any = context.get("ti")
        if ti is None:
            raise IntergiroValueError(
                f"The task {self.task_id} can pay only as a task of a DAG run: it has no context."
            )
        key = check_payment_key(self.payment_key)
        map_index = getattr(ti, "map_index", -1)
        if key is None and map_index is not None and map_index >= 0 and not _has_fixed_order(self, context):
            raise IntergiroValueError(
                f"The mapped task {self.task_id} has no `payment_key`. Its items come from another task, whose next "
                "run may bring them in another order, and then an item could be paid twice. Set `payment_key` to what "
                "identifies an item, such as an invoice id. Nothing was sent."
            )
        return Position(
            str(ti.dag_id), str(ti.task_id), str(ti.run_id), -1 if map_index is None else int(map_index), key,
            self.payment_scope,
        )  # fmt: skip

    def _record(self, hook: IntergiroHook, position: Position) -> Record:
        from intergiro_provider.payments.keys import record_name
        from intergiro_provider.payments.record import Record
        from intergiro_provider.pull.directory import Directory

        name = record_name(hook.settings.origin, self.intergiro_conn_id, position)
        if self.record_path is None:
            return Record(None, name)
        path = _object_path(self.record_path)
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


class IntergiroPaymentOperator(_PaymentBase):
    """Pay somebody, or move money between accounts of one holder, through the 3d API.

    .. code-block:: python

        IntergiroPaymentOperator(
            task_id="pay_rent",
            operation="pay",
            account_id="{{ var.value.rent_account }}",
            amount=1_250_00,
            reference="Rent {{ ds }}",
            counterparty="{{ var.json.landlord }}",
            record_path="s3://audit@payments/records",
        )

    The payment is made once, however often the task is tried or cleared: every attempt sends the same idempotency key.
    The key is made from the DAG, the task, the map index and the run, or from `payment_key`.

    Returns ``{payment_id, key, status, amount, currency, sha256}``, or with `dry_run` the plan
    ``{count, totals, sha256}``.

    :param operation: ``pay`` or ``move``.
    :param account_id: the account that pays. (templated)
    :param amount: an int in minor units (cents), or a Decimal with `currency`. (templated)
    :param reference: text for the payee. (templated)
    :param currency: ISO 4217 code of the account's currency, which is checked before anything is sent. None: the
        amount is in minor units of whatever the account's currency is. (templated)
    :param counterparty: for ``pay``: ``{"name", "iban", "bic"}`` or ``{"name", "account_id"}``, or JSON text of it; not
        stored with the task's rendered fields. (templated)
    :param target_account_id: for ``move``: the account that receives. (templated)
    :param payment_key: what identifies the payment, such as an invoice id; None: the task instance. (templated)
    :param payment_scope: where `payment_key` is unique: ``run``, ``dag`` or ``ever``; the last two need `record_path`.
    :param record_path: directory for the write-ahead record, an ObjectStoragePath URL; None: no record. (templated)
    :param key_trusted_for: how long after the first request the bank recognizes a repeated key. After it, the payment
        is looked up before it is sent again. ``timedelta(0)``: the key is never trusted.
    :param settle: how long after a request its payment may still appear in the bank's list.
    :param wait_for_consent: defer until a person has given consent, where the bank asks for it (412).
    :param dry_run: send nothing, return the plan.
    :param approved_plan: the ``sha256`` of the plan that was approved; another plan is refused. (templated)
    :param approved_by: who approved it, for the record. (templated)
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "account_id", "amount", "reference", "currency", "counterparty", "target_account_id", "payment_key",
        "record_path", "approved_plan", "approved_by", "intergiro_conn_id",
    )  # fmt: skip
    counterparty = _hidden("counterparty")
    reference = _hidden("reference")

    def __init__(
        self,
        *,
        operation: str,
        account_id: str,
        amount: Any,
        reference: str,
        currency: str | None = None,
        counterparty: Mapping[str, Any] | str | None = None,
        target_account_id: str | None = None,
        payment_key: str | None = None,
        payment_scope: str = "run",
        record_path: str | None = None,
        key_trusted_for: timedelta = timedelta(hours=24),
        settle: timedelta = timedelta(minutes=10),
        wait_for_consent: bool = False,
        dry_run: bool = False,
        approved_plan: str | None = None,
        approved_by: Any = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.account_id = account_id
        self.amount = amount
        self.reference = reference
        self.currency = currency
        self.counterparty = counterparty
        self.target_account_id = target_account_id
        self.payment_key = payment_key
        self.payment_scope = payment_scope
        self.record_path = record_path
        self.key_trusted_for = key_trusted_for
        self.settle = settle
        self.wait_for_consent = wait_for_consent
        self.only_plan = dry_run
        self.approved_plan = approved_plan
        self.approved_by = approved_by
        self.intergiro_conn_id = intergiro_conn_id
        self._check()
        wait_as_told(self)
        self._is_made = True

    def _check(self) -> None:
        if self.payment_scope != "run":
            from intergiro_provider.payments.keys import check_scope

            check_scope(self.payment_key, self.payment_scope, self.record_path)
        if isinstance(self.amount, float):
            from intergiro_provider.payments.amounts import minor_units

            minor_units(self.amount, None)

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Make the payment, or return the plan."""
        return self._pay(context, None)

    def _pay(self, context: Context, first_sent: datetime | None) -> dict[str, Any]:
        from intergiro_provider.exceptions import IntergiroConsentRequired
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.payments.plan import check_approval, plan_of, totals_of

        payment = self._payment()
        check_approval(self.approved_plan, payment.digest)
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="POST")
        _check_api(hook, "3d", "IntergiroBulkPaymentOperator")
        if payment.currency or self.only_plan:
            payment = _in_currency_of_account(hook, payment)
        if self.only_plan:
            return plan_of(1, totals_of([(payment.currency, payment.amount)]), payment.digest)
        position = self._position(context)
        single = self._single(hook, payment, position, context, first_sent)
        try:
            result = single.make()
        except IntergiroConsentRequired as error:
            if not self.wait_for_consent:
                raise
            return self._wait_for_consent(error, single)
        self.log.info("Payment %s: transaction %s, %s.", result["key"], result["payment_id"], result["status"])
        return result

    def _payment(self) -> Payment:
        from intergiro_provider.payments.plan import read_payment

        return read_payment(
            self.operation, self.account_id, self.amount, _shown(self.reference), self.currency,
            _decoded(_shown(self.counterparty)), self.target_account_id,
        )  # fmt: skip

    def _single(
        self, hook: IntergiroHook, payment: Payment, position: Position, context: Context, first_sent: datetime | None
    ) -> SinglePayment:
        from intergiro_provider.payments.keys import idempotency_key
        from intergiro_provider.payments.single import Policy, SinglePayment

        ti: Any = context["ti"]
        policy = Policy(
            key_trusted_for=self.key_trusted_for,
            settle=self.settle,
            last_try=int(getattr(ti, "try_number", 1) or 1) > int(getattr(ti, "max_tries", 0) or 0),
            earlier_since=first_sent or _earlier_since(context),
        )
        return SinglePayment(
            hook.client,
            payment,
            idempotency_key(hook.settings.key, position),
            self._record(hook, position),
            policy,
            self._described(position, context, self.approved_by, self.approved_plan),
        )

    def _wait_for_consent(self, error: Any, single: SinglePayment) -> dict[str, Any]:
        raise error


def _has_fixed_order(operator: BaseOperator, context: Context) -> bool:
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


def _earlier_since(context: Context) -> datetime | None:
    """Return when an earlier try of this task instance may have begun; None in its first try."""
    ti: Any = context["ti"]
    if int(getattr(ti, "try_number", 1) or 1) <= 1:
        return None
    run: Any = context.get("dag_run")
    names = ["start_date"]
    if getattr(run, "clear_number", 1) != 0:  # a clear sets a new start
        names += ["run_after", "logical_date", "execution_date"]
    moments = [moment for name in names if isinstance(moment := getattr(run, name, None), datetime)]
    return min(moments, default=datetime.now(UTC) - timedelta(days=7))


def _in_currency_of_account(hook: IntergiroHook, payment: Payment) -> Payment:
    """Return the payment with the currency of its account, which must be the stated one.

    :raises IntergiroValueError: the account has another currency.
    """
    from dataclasses import replace

    from intergiro_provider.exceptions import IntergiroNotFound, IntergiroValueError
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


def _check_api(hook: IntergiroHook, api: str, instead: str) -> None:
    from intergiro_provider.exceptions import IntergiroValueError

    if hook.settings.api != api:
        raise IntergiroValueError(
            f"The connection {hook.intergiro_conn_id!r} is for the {hook.settings.api} API, and this operator needs "
            f"`api` {api!r}. Use another connection, or {instead}. Nothing was sent."
        )


def _decoded(value: Any) -> Any:
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


def _object_path(location: Any) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from intergiro_provider.exceptions import IntergiroValueError

    text = str(location).strip()
    if "://" not in text and not text.startswith("/"):
        raise IntergiroValueError(
            f"`record_path` is {text!r}; it must be a URL such as s3://conn_id@bucket/directory, or an absolute path."
        )
    return ObjectStoragePath(text)
