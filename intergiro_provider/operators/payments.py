# SPDX-License-Identifier: Apache-2.0
"""Operators that pay through Intergiro, each payment once.

Each parse of a DAG file that uses the operators imports this module, so the modules that send requests are imported
when the task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from intergiro_provider.exceptions import IntergiroConsentRequired, IntergiroValueError, PaymentRejected
from intergiro_provider.links.intergiro import IntergiroConsentLink, IntergiroPortalLink
from intergiro_provider.operators.payment_base import (
    NOT_GIVEN,
    PaymentOperator,
    check_api,
    decode,
    hidden_field,
    key_of_first_try,
    object_path,
    possibly_sent_since,
    unhidden,
    with_account_currency,
)
from intergiro_provider.retry_policy import set_retry_policy
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.payments.keys import PaymentIdentity
    from intergiro_provider.payments.plan import Payment
    from intergiro_provider.payments.single import SinglePayment


class IntergiroPaymentOperator(PaymentOperator):
    """Pay a payee, or move money between accounts of one holder, through the 3d API (banking as a service).

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

    The payment is made once, however often the task is tried or cleared. Every attempt sends the same idempotency key,
    which is made from the DAG, the task, the map index and the run, or from `payment_key`.

    The result is ``{payment_id, key, status, amount, currency, sha256}``. With `dry_run` it is the plan,
    ``{count, totals, sha256}``.

    :param operation: ``pay`` or ``move``.
    :param account_id: the account that pays. (templated)
    :param amount: an int in minor units (cents), or a Decimal with `currency`. (templated)
    :param reference: text for the payee. (templated)
    :param currency: ISO 4217 code of the account's currency. If the account has another currency, nothing is sent.
        None: the amount is in minor units of the account's currency, which is not checked. (templated)
    :param counterparty: for ``pay``: ``{"name", "iban", "bic"}`` or ``{"name", "account_id"}``, or a JSON string of it.
        Not stored with the task's rendered fields. (templated)
    :param target_account_id: for ``move``: the account that receives. (templated)
    :param payment_key: identifies the payment, such as an invoice id; None: the task instance does. (templated)
    :param payment_scope: where `payment_key` is unique: ``run``, ``dag`` or ``ever``; the last two need `record_path`.
    :param record_path: directory for the write-ahead record, an ObjectStoragePath URL; None: no record. (templated)
    :param key_trusted_for: how long after the first request the bank recognizes a repeated key. When less than `settle`
        of that time is left, the task looks the payment up before it sends it again. With ``timedelta(0)``, or any
        value up to `settle`, the key is never trusted, and `record_path` is required.
    :param settle: how long after a request its payment may still appear in the bank's list.
    :param wait_for_consent: if the bank requires a person's consent (status 412), defer until it is given.
    :param consent_poll_interval: seconds between two requests for the consent's status.
    :param dry_run: send nothing, and return the plan.
    :param approved_plan: the ``sha256`` of the approved plan; another plan, or None, is refused. Without this argument,
        no approval is needed. (templated)
    :param approved_by: the person who approved the plan, for the record. (templated)
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "account_id", "amount", "reference", "currency", "counterparty", "target_account_id", "payment_key",
        "record_path", "approved_plan", "approved_by", "intergiro_conn_id",
    )  # fmt: skip
    operator_extra_links = (IntergiroConsentLink(), IntergiroPortalLink())
    counterparty = hidden_field("counterparty")
    reference = hidden_field("reference")

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
        consent_poll_interval: float = 10.0,
        dry_run: bool = False,
        approved_plan: Any = NOT_GIVEN,
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
        self.consent_poll_interval = consent_poll_interval
        self.only_plan = dry_run
        self.approved_plan = approved_plan
        self.approved_by = approved_by
        self.intergiro_conn_id = intergiro_conn_id
        self._check(settle=settle, key_trusted_for=key_trusted_for)
        if not isinstance(consent_poll_interval, (int, float)) or not 0 < consent_poll_interval < inf:
            raise IntergiroValueError(
                f"`consent_poll_interval` is {consent_poll_interval!r}. It must be a finite number of seconds above 0."
            )
        if isinstance(amount, float):
            from intergiro_provider.payments.amounts import minor_units

            minor_units(amount, None)
        set_retry_policy(self)
        self._is_initialized = True

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Make the payment, or return the plan."""
        return self._pay(context)

    def _pay(
        self, context: Context, first_sent: datetime | None = None, key: str = "", decision: str = ""
    ) -> dict[str, Any]:
        """Make the payment.

        :param first_sent: when the first request was sent, if the task resumes after a wait for consent; else None.
        :param key: the idempotency key of that request; empty: none was sent.
        :param decision: how that wait ended, see :class:`.IntergiroConsentTrigger`; empty: there was no wait.
        """
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.payments.plan import check_approval, plan_summary, totals_of

        self._check_rendered()
        payment = self._payment()
        check_approval(self.approved_plan, payment.digest)
        if self.record_path is None and self.key_trusted_for <= self.settle:
            raise IntergiroValueError(
                f"`record_path` is None, but `key_trusted_for` ({self.key_trusted_for}) is not longer than `settle` "
                f"({self.settle}). So the idempotency key is never trusted, and only a record can prevent a second "
                "payment. Nothing was sent. Set `record_path`."
            )
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="POST")
        check_api(hook, "3d", "IntergiroBulkPaymentOperator")
        if payment.currency or self.only_plan:
            payment = with_account_currency(hook, payment)
        if self.only_plan:
            return plan_summary(1, totals_of([(payment.currency, payment.amount)]), payment.digest)
        identity = self._identity(context)
        single = self._single_payment(hook, payment, identity, context, first_sent, key)
        try:
            result = self._without_consent(single, decision) if decision in ("refused", "expired") else single.make()
        except IntergiroConsentRequired as error:
            # A person who has returned may not have decided yet. After any other end, waiting again is useless.
            if not self.wait_for_consent or decision not in ("", "returned"):
                raise
            self._wait_for_consent(error, single, context)
        self.log.info("Payment %s: transaction %s, %s.", result["key"], result["payment_id"], result["status"])
        return result

    def _payment(self) -> Payment:
        from intergiro_provider.payments.plan import read_payment

        return read_payment(
            self.operation, self.account_id, self.amount, unhidden(self.reference), self.currency,
            decode(unhidden(self.counterparty)), self.target_account_id,
        )  # fmt: skip

    def _single_payment(
        self, hook: IntergiroHook, payment: Payment, identity: PaymentIdentity, context: Context,
        first_sent: datetime | None, key: str,
    ) -> SinglePayment:  # fmt: skip
        from intergiro_provider.payments.keys import idempotency_key
        from intergiro_provider.payments.single import Policy, SinglePayment

        ti: Any = context["ti"]
        record = self._record(hook, identity)
        computed = idempotency_key(hook.settings.key, identity)
        first_key, is_certain = key_of_first_try(context, record.name, computed)
        policy = Policy(
            key_trusted_for=self.key_trusted_for,
            settle=self.settle,
            last_try=int(getattr(ti, "try_number", 1) or 1) > int(getattr(ti, "max_tries", 0) or 0),
            # Without a record, another task of the run may have sent the payment with the same `payment_key`.
            possibly_sent_since=first_sent
            or possibly_sent_since(context, shared=self.record_path is None and self.payment_key),
            key_may_differ=not is_certain and not record.is_kept,
        )
        return SinglePayment(
            hook.client,
            payment,
            key or first_key,  # the API key may have changed during a wait
            record,
            policy,
            self._task_fields(identity, context, self.approved_by),
        )

    def _without_consent(self, single: SinglePayment, decision: str) -> dict[str, Any]:
        """Return the result if the bank has made the payment although the consent was refused or has expired.

        :raises PaymentRejected: it has not.
        """
        if result := single.find():
            return result
        raise PaymentRejected(
            f"The consent for payment {single.key} {'was refused' if decision == 'refused' else 'has expired'}, and "
            "the bank shows no payment. To request consent again, clear this task: it sends the same key."
        )

    def _wait_for_consent(self, error: IntergiroConsentRequired, single: SinglePayment, context: Context) -> NoReturn:
        """Defer the task until the person has decided."""
        from intergiro_provider.triggers.payments import IntergiroConsentTrigger

        if not error.consent_id:
            raise error
        IntergiroConsentLink.persist(context, error.consent_id, error.expires_at, self.intergiro_conn_id)
        self.log.info("Payment %s waits for a person's consent until %s.", single.key, error.expires_at)
        self.defer(
            trigger=IntergiroConsentTrigger(
                error.consent_id, error.expires_at, self.consent_poll_interval, self.intergiro_conn_id
            ),
            method_name=self.resume.__name__,
            kwargs={
                "first_sent": single.first_sent().isoformat(),
                "consent_id": error.consent_id,
                "key": single.key,
            },
        )

    @message_only
    def resume(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        first_sent: str = "",
        consent_id: str = "",
        key: str = "",
    ) -> dict[str, Any]:
        """Look up the payment, which the bank may have made on consent. If it is not there, send it."""
        from intergiro_provider.payments.record import parse_time
        from intergiro_provider.triggers.payments import delete_return

        delete_return(consent_id)
        return self._pay(context, parse_time(first_sent), key, (event or {}).get("decision", "unknown"))


class IntergiroBulkPaymentOperator(PaymentOperator):
    """Submit SEPA payments in EUR through the 2d API (business banking). A person approves them in the portal.

    .. code-block:: python

        IntergiroBulkPaymentOperator(
            task_id="pay_wages",
            account_id="{{ var.value.wages_account }}",
            items="s3://audit@payments/wages/{{ ds }}.jsonl",
            record_path="s3://audit@payments/records",
        )

    More than 1,000 items are split into batches. The split does not depend on the order of the items, and is recorded
    before anything is sent. The bank supports no idempotency key for batches. If the outcome of a batch is unknown, the
    task looks it up by the `correlation_ids` of its items. If the outcome is still unknown, it fails with
    OutcomeUnknown.

    The result is ``{key, count, totals, sha256, batches}``. With `dry_run` it is the plan, ``{count, totals, sha256}``.

    :param account_id: the account that pays. (templated)
    :param items: dicts of `counterparty` (``{"name", "iban", "bic"}``), `amount` (an int in cents; with
        ``"currency": "EUR"`` also a Decimal or a string), `reference`, and optionally `correlation_id`. Or the URL of a
        file with one item as JSON per line. Not stored with the task's rendered fields. (templated)
    :param record_path: directory for the write-ahead record, an ObjectStoragePath URL. (templated)
    :param payment_key: identifies the bulk payment, such as a payroll id; None: the task instance does. (templated)
    :param payment_scope: where `payment_key` is unique: ``run``, ``dag`` or ``ever``.
    :param settle: how long after a request its payments may still appear in the bank's list.
    :param resend_after: how long after a request a batch is sent again if the bank shows none of its items; None:
        never.
    :param dry_run: send nothing, and return the plan.
    :param approved_plan: the ``sha256`` of the approved plan; another plan, or None, is refused. Without this argument,
        no approval is needed. (templated)
    :param approved_by: the person who approved the plan, for the record. (templated)
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "account_id", "items", "payment_key", "record_path", "approved_plan", "approved_by", "intergiro_conn_id",
    )  # fmt: skip
    items = hidden_field("items")

    def __init__(
        self,
        *,
        account_id: str,
        items: Any,
        record_path: str,
        payment_key: str | None = None,
        payment_scope: str = "run",
        settle: timedelta = timedelta(minutes=10),
        resend_after: timedelta | None = None,
        dry_run: bool = False,
        approved_plan: Any = NOT_GIVEN,
        approved_by: Any = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.account_id = account_id
        self.items = items
        self.record_path = record_path
        self.payment_key = payment_key
        self.payment_scope = payment_scope
        self.settle = settle
        self.resend_after = resend_after
        self.only_plan = dry_run
        self.approved_plan = approved_plan
        self.approved_by = approved_by
        self.intergiro_conn_id = intergiro_conn_id
        self._check(settle=settle, **({} if resend_after is None else {"resend_after": resend_after}))
        set_retry_policy(self)
        self._is_initialized = True

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the items, or return the plan."""
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.payments.batches import read_plan
        from intergiro_provider.payments.bulk import BulkPayment
        from intergiro_provider.payments.keys import idempotency_key
        from intergiro_provider.payments.plan import check_approval

        self._check_rendered()
        plan = read_plan(self.account_id, self._read_items())
        check_approval(self.approved_plan, plan.digest)
        if self.only_plan:
            return plan.summary()
        if self.record_path is None:
            raise IntergiroValueError(
                "`record_path` is None, but a bulk payment needs a record. Nothing was sent. Set it to a directory."
            )
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="POST")
        check_api(hook, "2d", "IntergiroPaymentOperator")
        identity = self._identity(context)
        result = BulkPayment(
            hook.client,
            plan,
            idempotency_key(hook.settings.key, identity),
            self._record(hook, identity),
            self._record(hook, identity, "-plan"),
            self.settle,
            self.resend_after,
            self._task_fields(identity, context, self.approved_by),
            possibly_sent_since(context),
        ).make()
        self.log.info("%d items were submitted in %d batches.", result["count"], len(result["batches"]))
        return result

    def _read_items(self) -> Any:
        """Return the items; if `items` is the URL of a file, read the file."""
        from intergiro_provider.payments.batches import read_lines

        given = decode(unhidden(self.items))
        if not isinstance(given, str):
            return given
        # In Airflow 2.11, a file of ObjectStoragePath cannot be iterated.
        return list(read_lines(object_path(given, "`items`").read_bytes().split(b"\n")))
